"""What the helpers write comes back with equal values, or is refused in words."""

import datetime as dt
import uuid
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pandas.testing import assert_frame_equal

from bitstorm.core.errors import SnapshotDamaged, StoreError
from bitstorm.core.third_party_noise import without_third_party_warnings
from bitstorm.store.files import (
    load_all_csvs_from_folder,
    load_from_parquet,
    load_petastorm_batches_to_df,
    save_to_csv,
    save_to_parquet_arrow,
)

TIMES = pd.DatetimeIndex([1_704_110_400_000_000_001, 1_719_835_200_000_000_000])


def by_petastorm(folder: Path) -> pd.DataFrame:
    with without_third_party_warnings():
        from petastorm import make_batch_reader

        with make_batch_reader(folder.as_uri(), reader_pool_type="dummy", num_epochs=1) as reader:
            (batch,) = list(reader)
    return pd.DataFrame(batch._asdict())


@pytest.mark.parametrize(
    "values",
    [
        [True, False],
        [True, None],
        np.array([-1, 1], np.int8),
        np.array([2**16 - 1, 1], np.uint16),
        np.array([2**32 - 1, 1], np.uint32),
        np.array([2**63 - 1, 1], np.uint64),
        np.array([0.1, np.nan], np.float32),
        pd.array([1, None], dtype="Int64"),
        pd.array([1.5, None], dtype="Float64"),
        pd.array([True, None], dtype="boolean"),
        pd.array(["x", None], dtype="string"),
        pd.array(["x", "y"], dtype="string[pyarrow]"),
        ["x", None],
        ["None", ""],
        [None, None],
        [b"x", b"\xff"],
        [Decimal("1.25"), None],
        [dt.date(2024, 1, 1), dt.date(2024, 1, 2)],
        TIMES,
        TIMES.astype("datetime64[s]"),
        pd.to_datetime(["2024-01-01", None]),
        TIMES.tz_localize("UTC"),
        TIMES.tz_localize("Europe/Berlin"),
        pd.Categorical(["x", None]),
        pd.Categorical([7, 3]),
    ],
    ids=repr,
)
@pytest.mark.filterwarnings("error")
def test_values_of_every_type_come_back_equal(tmp_path: Path, values: Any) -> None:
    frame = pd.DataFrame({"price": [1.0, 2.0], "x": values})
    save_to_parquet_arrow(frame, str(tmp_path))
    for read in (load_petastorm_batches_to_df, lambda path: next(load_from_parquet(path))):
        found = read(str(tmp_path))
        expected = frame["x"].astype(object).where(frame["x"].notna(), None).tolist()
        null = found["x"].isna()
        assert found["x"].astype(object).where(~null, None).tolist() == expected
        assert list(found) == ["price", "x"]
    assert list(by_petastorm(tmp_path)) == ["price", "x"]


@pytest.mark.parametrize(
    "values",
    [
        [[1, 2], [3]],
        [[1, 2], [3, 4]],
        [np.array([1.0]), np.array([2.0])],
        [{"a": 1}, {"a": 2}],
        [{}, {}],
        [1, "x"],
        [object(), object()],
        [uuid.uuid4(), uuid.uuid4()],
        [2**70, 1],
        [1j, 2],
        ["\ud800", "x"],
        [dt.time(1), dt.time(2)],
        np.array([2**64 - 1, 1], np.uint64),
        np.array([1, 2], np.float16),
        pd.array([2**53 + 1, None], dtype="Int64"),
        pd.to_timedelta([1, 2], unit="h"),
        pd.period_range("2024", periods=2, freq="D"),
        pd.interval_range(0, 2),
        pd.arrays.SparseArray([0, 1]),
    ],
    ids=lambda values: str(type(values[0])),
)
@pytest.mark.filterwarnings("error")
def test_a_type_that_petastorm_cannot_read_is_refused(tmp_path: Path, values: Any) -> None:
    frame = pd.DataFrame({"price": [1.0, 2.0], "x": values})
    with pytest.raises(StoreError, match=r"column x|does not fit into Parquet"):
        save_to_parquet_arrow(frame, str(tmp_path / "new"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "usable"),
    [
        ("Adj Close", "Adj_Close"),
        ("a.b", "a_b"),
        ("24h", "column_24h"),
        (0, "column_0"),
        ("_x", "x"),
        ("class", "column_class"),
        ("price (USD)", "price_USD"),
        ("%", "column_"),
        ("ﬁ", "fi"),
        (" price", "price"),
    ],
)
def test_a_name_that_petastorm_cannot_read_gets_another(
    tmp_path: Path, name: Any, usable: str
) -> None:
    with pytest.raises(StoreError, match="cannot read columns named") as refused:
        save_to_parquet_arrow(pd.DataFrame({name: [1.0, 2.0]}), str(tmp_path))
    assert f"df.rename(columns={{{str(name)!r}: {usable!r}}})" in str(refused.value)
    save_to_parquet_arrow(pd.DataFrame({usable: [1.0, 2.0]}), str(tmp_path))
    assert list(by_petastorm(tmp_path)) == [usable]


@pytest.mark.parametrize("name", ["größe", "цена", "Close", "index", "count", "x" * 300])
def test_other_names_come_back(tmp_path: Path, name: str) -> None:
    frame = pd.DataFrame({name: [1.0, 2.0], name.upper() + "_": [3, 4]})
    save_to_parquet_arrow(frame, str(tmp_path))
    assert_frame_equal(load_petastorm_batches_to_df(str(tmp_path)), frame)
    assert_frame_equal(by_petastorm(tmp_path), frame)


@pytest.mark.parametrize(
    "columns",
    [["a", "a"], ["", "a"], [None, "a"], pd.MultiIndex.from_tuples([("a", "b"), ("a", "c")])],
    ids=str,
)
def test_columns_without_a_name_of_their_own_are_refused(tmp_path: Path, columns: Any) -> None:
    frame = pd.DataFrame([[1, 2]], columns=columns)
    for save in (save_to_csv, save_to_parquet_arrow):
        with pytest.raises(StoreError, match="a name for each column, each one once"):
            save(frame, str(tmp_path))
        with pytest.raises(StoreError, match="expected a pandas DataFrame and the path"):
            save(None, str(tmp_path))
        with pytest.raises(StoreError, match="expected a pandas DataFrame and the path"):
            save(pd.DataFrame({"a": [1]}), None)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.filterwarnings("error")
def test_foreign_parquet_loads_whole(tmp_path: Path) -> None:
    index = pd.date_range("2024", periods=2)
    frame = pd.DataFrame(
        {
            "Adj Close": [1.0, 2.0],
            "Volume": [3, 4],
            "a.b": ["x", None],
            "list": [[1], [1, 2]],
            "span": pd.to_timedelta([1, 2], unit="h"),
            "count": np.array([5, 6], np.uint32),
        },
        index=index,
    )
    frame.to_parquet(tmp_path / "yahoo.parquet")
    found = load_petastorm_batches_to_df(str(tmp_path))
    assert list(found) == [*frame.columns, "__index_level_0__"]
    assert found["__index_level_0__"].tolist() == index.tolist()
    for name in frame.drop(columns="list"):
        assert found[name].tolist() == frame[name].tolist()
    assert [values.tolist() for values in found["list"]] == [[1], [1, 2]]


@pytest.mark.filterwarnings("error")
def test_files_of_different_columns_are_joined_by_name(tmp_path: Path) -> None:
    for number, table in enumerate(
        [{"a": [1]}, {"a": pa.array([None], pa.float64())}, {"a": [2.5], "B c": ["x"]}, {"d": [3]}]
    ):
        pq.write_table(pa.table(table), tmp_path / f"{number}.parquet")
    found = load_petastorm_batches_to_df(str(tmp_path))
    expected = {
        "a": [1, np.nan, 2.5, np.nan],
        "B c": [np.nan, np.nan, "x", np.nan],
        "d": [np.nan] * 3 + [3],
    }
    assert_frame_equal(found, pd.DataFrame(expected))


def test_a_repeated_column_and_torn_pages_are_named(tmp_path: Path) -> None:
    twice = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"])
    pq.write_table(twice, tmp_path / "twice.parquet")
    with pytest.raises(SnapshotDamaged, match=r"twice\.parquet has more than one column a"):
        load_petastorm_batches_to_df(str(tmp_path / "twice.parquet"))
    torn = tmp_path / "torn.parquet"
    pq.write_table(pa.table({"a": np.arange(10_000)}), torn)
    content = bytearray(torn.read_bytes())
    content[4:4_000] = b"\xff" * 3_996
    torn.write_bytes(content)
    with pytest.raises(SnapshotDamaged, match=r"torn\.parquet cannot be read"):
        load_petastorm_batches_to_df(str(torn))


@pytest.mark.parametrize("value", [[1], (1,), {"a": 1}, {1}, b"x", np.array([1])], ids=str)
def test_a_csv_refuses_what_no_cell_can_hold(tmp_path: Path, value: Any) -> None:
    frame = pd.DataFrame({"x": pd.Series([None, value], dtype=object)})
    with pytest.raises(StoreError, match=r"the column x has a .*, which a CSV cell cannot hold"):
        save_to_csv(frame, str(tmp_path))
    with pytest.raises(StoreError, match="a text of the frame is no Unicode"):
        save_to_csv(pd.DataFrame({"x": ["\ud800"]}), str(tmp_path))
    with pytest.raises(StoreError, match="expected one without folders"):
        save_to_csv(pd.DataFrame({"x": [1]}), str(tmp_path), 5)  # type: ignore[arg-type]


def test_a_csv_keeps_every_digit_and_name(tmp_path: Path) -> None:
    numbers = np.random.default_rng(1).uniform(0, 1e5, 2_000)
    frame = pd.DataFrame({"Adj Close": numbers, "a.b": 1 / numbers, "24h": "größe", "ok": True})
    save_to_csv(frame, str(tmp_path), "a.csv")
    assert_frame_equal(load_all_csvs_from_folder(str(tmp_path)), frame)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "other",
    ["timestamp,price,note\n", "timestamp,price,note\n,,\n", "timestamp,price\n", "note,price\n"],
)
def test_a_csv_without_values_changes_no_type(tmp_path: Path, other: str) -> None:
    (tmp_path / "a.csv").write_text(other, encoding="utf-8")
    (tmp_path / "b.csv").write_text("timestamp,price,ok\n10,1.5,True\n20,2.5,False\n", "utf-8")
    found = load_all_csvs_from_folder(str(tmp_path)).dropna(subset="price")
    assert set(found) <= {"timestamp", "price", "note", "ok"}
    assert found["price"].dtype == np.float64
    assert found["timestamp"].tolist() == [10, 20]
    if other.count("\n") == 1:
        assert found["timestamp"].dtype == np.int64
        assert found["ok"].dtype == bool


@pytest.mark.filterwarnings("error")
def test_only_headers_are_an_empty_frame_with_their_columns(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.csv").write_text(f"timestamp,{name}\n", encoding="utf-8")
    found = load_all_csvs_from_folder(str(tmp_path))
    assert list(found) == ["timestamp", "a", "b"]
    assert found.empty


@pytest.mark.filterwarnings("error")
def test_a_comma_at_the_end_of_each_row_moves_no_column(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("timestamp,price\n10,1.5,\n20,2.5,\n", encoding="utf-8")
    expected = pd.DataFrame({"timestamp": [10, 20], "price": [1.5, 2.5]})
    assert_frame_equal(load_all_csvs_from_folder(str(tmp_path)), expected)
    (tmp_path / "b.csv").write_text("timestamp,price\n10,1.5,7\n", encoding="utf-8")
    with pytest.warns(UserWarning, match=r"b\.csv is skipped: Length of header"):
        assert_frame_equal(load_all_csvs_from_folder(str(tmp_path)), expected)


@pytest.mark.filterwarnings("error")
def test_a_long_file_of_mixed_values_gives_no_warning(tmp_path: Path) -> None:
    rows = "".join(f"{n},{'x' if n > 90_000 else n}\n" for n in range(100_000))
    (tmp_path / "a.csv").write_text(f"timestamp,note\n{rows}", encoding="utf-8")
    assert len(load_all_csvs_from_folder(str(tmp_path))) == 100_000


@pytest.mark.parametrize("save", [save_to_csv, save_to_parquet_arrow])
@pytest.mark.parametrize("index", [pd.date_range("2024", periods=2), ["a", "b"], [0.5, 1.5]])
def test_an_index_without_a_name_is_not_lost_in_silence(
    tmp_path: Path, save: Any, index: Any
) -> None:
    frame = pd.DataFrame({"price": [1.0, 2.0]}, index=index)
    with pytest.warns(UserWarning, match="the index has no name and is left out") as caught:
        save(frame, str(tmp_path))
    assert caught[0].filename == __file__


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "index",
    [
        pd.RangeIndex(2),
        pd.Index([7, 3]),
        pd.Index(["a", "b"], name="name"),
        pd.date_range("2024", periods=2, name="timestamp", tz="Europe/Berlin"),
        pd.MultiIndex.from_tuples([(1, "a"), (2, "b")], names=["number", "name"]),
    ],
    ids=repr,
)
def test_a_named_index_comes_back_as_columns(tmp_path: Path, index: pd.Index) -> None:
    frame = pd.DataFrame({"price": [1.0, 2.0]}, index=index)
    save_to_parquet_arrow(frame, str(tmp_path))
    found = load_petastorm_batches_to_df(str(tmp_path))
    named = [name for name in index.names if name is not None]
    assert list(found) == [*named, "price"]
    for name in named:
        assert found[name].tolist() == index.get_level_values(name).tolist()
