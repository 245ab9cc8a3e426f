import re
import threading
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pandas.testing import assert_frame_equal

from bitstorm.core.errors import SnapshotDamaged, SnapshotMissing, StoreError
from bitstorm.core.third_party_noise import without_third_party_warnings
from bitstorm.indicators.frame import prepare_bitcoin_df
from bitstorm.store import snapshots
from bitstorm.store.files import (
    get_parquet_columns,
    load_all_csvs_from_folder,
    load_from_parquet,
    load_petastorm_batches_to_df,
    save_to_csv,
    save_to_parquet_arrow,
)

# petastorm's readers leave their files to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed file .*parquet:ResourceWarning")


@pytest.fixture
def frame() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "timestamp": [1_704_067_200_000, 1_704_070_800_000, 1_704_074_400_000],
            "price": np.asarray([42_000.5, 42_100.25, 42_050.0], np.float32),
            "market_cap": [8.2e11, np.nan, 8.3e11],
            "note": ["a", 'with "quotes", and a comma', "größer"],
        }
    )


@pytest.fixture
def dataset(tmp_path: Path, frame: pd.DataFrame) -> Path:
    """A hive folder of two months, two row groups in the first, with what readers must skip."""
    root = tmp_path / "a data set"
    for month, start in (("2024-01", 0), ("2024-02", 3)):
        folder = root / f"month={month}"
        folder.mkdir(parents=True)
        rows = frame.assign(timestamp=frame["timestamp"] + start)
        pq.write_table(
            pa.Table.from_pandas(rows, preserve_index=False),
            folder / "part-0.parquet",
            row_group_size=2 if start == 0 else 3,
        )
    (root / "_metadata").write_bytes(b"stale")
    (root / "month=2024-01" / ".part-9.parquet").write_bytes(b"half written")
    (root / "_temporary").mkdir()
    (root / "_temporary" / "part-1.parquet").write_bytes(b"half written")
    return root


def expected(frame: pd.DataFrame) -> pd.DataFrame:
    return pd.concat(
        [
            frame.assign(month="2024-01"),
            frame.assign(timestamp=frame["timestamp"] + 3, month="2024-02"),
        ],
        ignore_index=True,
    )


def test_a_csv_comes_back_as_it_was_saved(tmp_path: Path, frame: pd.DataFrame) -> None:
    path = save_to_csv(frame, str(tmp_path / "new" / "folder"), "prices.csv")
    assert path == str(tmp_path / "new" / "folder" / "prices.csv")
    read = load_all_csvs_from_folder(str(tmp_path / "new" / "folder"))
    assert_frame_equal(read.astype({"price": np.float32}), frame)


def test_without_a_name_a_csv_gets_its_time_and_no_two_meet(
    tmp_path: Path, frame: pd.DataFrame
) -> None:
    paths = [Path(save_to_csv(frame, str(tmp_path))) for _ in range(3)]
    assert len(set(paths)) == 3
    for path in paths:
        assert re.fullmatch(r"bitcoin_prices_\d{8}_\d{6}_\d{6}\.csv", path.name)
    assert sorted(tmp_path.iterdir()) == sorted(paths)


def test_only_a_named_index_is_saved_as_a_column(tmp_path: Path, frame: pd.DataFrame) -> None:
    prepared = prepare_bitcoin_df(frame)
    save_to_csv(prepared, str(tmp_path / "csv"), "a.csv")
    read = load_all_csvs_from_folder(str(tmp_path / "csv"))
    assert list(read.columns) == ["timestamp", *prepared.columns]
    assert_frame_equal(prepare_bitcoin_df(read), prepared)
    save_to_csv(frame.set_axis([5, 6, 7]), str(tmp_path / "plain"), "a.csv")
    assert list(load_all_csvs_from_folder(str(tmp_path / "plain")).columns) == list(frame.columns)


def test_a_csv_name_must_stay_in_its_folder(tmp_path: Path, frame: pd.DataFrame) -> None:
    for name in ("../x.csv", "a/b.csv", "", ".", "..", str(tmp_path / "x.csv")):
        with pytest.raises(StoreError, match="expected one without folders"):
            save_to_csv(frame, str(tmp_path / "out"), name)
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match="cannot be created"):
        save_to_csv(frame, str(tmp_path / "file"))


def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, frame: pd.DataFrame
) -> None:
    save_to_parquet_arrow(frame, str(tmp_path))
    with pytest.raises(StoreError, match="does not fit into Parquet"):
        save_to_parquet_arrow(pd.DataFrame({"x": [1, "a", object()]}), str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["data.parquet"]
    assert_frame_equal(pd.read_parquet(tmp_path / "data.parquet"), frame)


def test_csv_files_are_joined_by_column_in_order_of_their_names(tmp_path: Path) -> None:
    (tmp_path / "b.csv").write_text("price,timestamp\n3,30\n", encoding="utf-8")
    (tmp_path / "a.csv").write_bytes("\ufefftimestamp,price\r\n10,1\r\n20,2\r\n".encode())
    pd.DataFrame({"timestamp": [40], "price": [4]}).to_csv(tmp_path / "c.csv.gz", index=False)
    (tmp_path / "a.csv.json").write_text("{}", encoding="utf-8")
    (tmp_path / ".hidden.csv").write_text("x\n1\n", encoding="utf-8")
    (tmp_path / "folder.csv.d").mkdir()
    assert_frame_equal(
        load_all_csvs_from_folder(tmp_path.as_uri()),
        pd.DataFrame({"timestamp": [10, 20, 30, 40], "price": [1, 2, 3, 4]}),
    )


def test_a_file_that_does_not_load_is_skipped_with_a_warning(tmp_path: Path) -> None:
    (tmp_path / "good.csv").write_text("timestamp,price\n1,2\n", encoding="utf-8")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00a,b\n\x80")
    (tmp_path / "empty.csv").write_bytes(b"")
    (tmp_path / "ragged.csv").write_text("a,b\n1,2\n1,2,3,4\n", encoding="utf-8")
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "torn.csv.gz").write_bytes(b"\x1f\x8b\x08\x00torn")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        read = load_all_csvs_from_folder(str(tmp_path))
    assert_frame_equal(read, pd.DataFrame({"timestamp": [1], "price": [2]}))
    said = [str(warning.message) for warning in caught]
    names = ["binary.csv", "empty.csv", "folder.csv", "ragged.csv", "torn.csv.gz"]
    assert [text.split(" is skipped: ")[0] for text in said] == names
    assert all(warning.filename == __file__ for warning in caught)


def test_no_csv_is_an_empty_frame_and_no_folder_an_error(tmp_path: Path) -> None:
    assert load_all_csvs_from_folder(str(tmp_path)).empty
    with pytest.raises(StoreError, match="there is no folder"):
        load_all_csvs_from_folder(str(tmp_path / "none"))


@pytest.mark.parametrize("as_url", [False, True])
def test_saved_parquet_comes_back_and_its_columns_are_known(
    tmp_path: Path, frame: pd.DataFrame, as_url: bool
) -> None:
    folder = tmp_path / "größe 50%"
    path = save_to_parquet_arrow(frame, folder.as_uri() if as_url else str(folder))
    assert path == str(folder / "data.parquet")
    assert get_parquet_columns(path) == list(frame.columns)
    assert get_parquet_columns(folder.as_uri()) == list(frame.columns)
    assert_frame_equal(load_petastorm_batches_to_df(str(folder)), frame)


def test_saved_parquet_is_readable_with_petastorm_itself(
    tmp_path: Path, frame: pd.DataFrame
) -> None:
    save_to_parquet_arrow(prepare_bitcoin_df(frame), str(tmp_path))
    with without_third_party_warnings():
        from petastorm import make_batch_reader

        # The dummy pool: the thread pool of petastorm 0.13 may end a short pass before its rows.
        with make_batch_reader(tmp_path.as_uri(), reader_pool_type="dummy", num_epochs=1) as reader:
            (batch,) = list(reader)
    expected = pd.to_datetime(frame["timestamp"], unit="ms").to_numpy()
    np.testing.assert_array_equal(batch.timestamp.astype("datetime64[ns]"), expected)
    np.testing.assert_array_equal(batch.price_usd, frame["price"].astype(np.float64))


def test_a_prepared_frame_survives_parquet_with_its_times(
    tmp_path: Path, frame: pd.DataFrame
) -> None:
    prepared = prepare_bitcoin_df(frame)
    save_to_parquet_arrow(prepared, str(tmp_path))
    assert_frame_equal(prepare_bitcoin_df(load_petastorm_batches_to_df(str(tmp_path))), prepared)


def test_a_frame_without_rows_survives_parquet(tmp_path: Path, frame: pd.DataFrame) -> None:
    save_to_parquet_arrow(frame.iloc[:0], str(tmp_path))
    assert_frame_equal(load_petastorm_batches_to_df(str(tmp_path)), frame.iloc[:0])
    assert list(load_from_parquet(str(tmp_path))) == []


def test_a_folder_is_read_in_order_with_month_from_the_paths(
    dataset: Path, frame: pd.DataFrame
) -> None:
    for location in (str(dataset), dataset.as_uri(), str(dataset) + "/"):
        assert_frame_equal(load_petastorm_batches_to_df(location), expected(frame))


def test_batches_come_one_by_one_and_make_up_the_whole(dataset: Path, frame: pd.DataFrame) -> None:
    batches = list(load_from_parquet(str(dataset)))
    assert [len(batch) for batch in batches] == [2, 1, 3]
    assert_frame_equal(pd.concat(batches, ignore_index=True), expected(frame))


def test_taking_only_the_first_batch_leaves_no_thread_behind(dataset: Path) -> None:
    before = threading.active_count()
    batches = load_from_parquet(str(dataset))
    assert len(next(batches)) == 2
    batches.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before


def test_nothing_to_read_is_said_at_once(tmp_path: Path) -> None:
    for location in (tmp_path, tmp_path / "none"):
        with pytest.raises(SnapshotMissing, match=r"found no Parquet file under"):
            load_from_parquet(str(location))
        with pytest.raises(SnapshotMissing):
            get_parquet_columns(str(location))
    with pytest.raises(StoreError, match="s3://bucket/x is not a local file"):
        load_petastorm_batches_to_df("s3://bucket/x")


def test_a_file_that_is_not_parquet_is_named(dataset: Path) -> None:
    wrong = dataset / "month=2024-02" / "part-1.parquet"
    wrong.write_bytes(b"PAR1 but not really")
    with pytest.raises(SnapshotDamaged, match=re.escape(str(wrong))):
        load_petastorm_batches_to_df(str(dataset))
    with pytest.raises(SnapshotDamaged, match=re.escape(str(wrong))):
        get_parquet_columns(str(wrong))


def test_a_data_sets_root_means_its_newest_snapshot(tmp_path: Path) -> None:
    from bitstorm.utils import BitcoinSchema, make_batch_writer

    root = tmp_path / "prices"
    stamps = [1_704_067_200_000, 1_706_745_600_000]
    for stamp in stamps:
        with make_batch_writer(root, BitcoinSchema) as writer:
            writer.write(pd.DataFrame({"timestamp": [stamp], "price": [1.5]}))
    whole = load_petastorm_batches_to_df(str(root))
    assert whole["timestamp"].tolist() == stamps
    assert whole["month"].tolist() == ["2024-01", "2024-02"]
    folder = snapshots.required(root).folder
    assert_frame_equal(load_petastorm_batches_to_df(str(folder)), whole)
    first = min((root / "snapshots").iterdir(), key=lambda path: path.name)
    assert load_petastorm_batches_to_df(str(first))["timestamp"].tolist() == stamps[:1]
    # A stray file that no manifest names is not read as part of the data set.
    pq.write_table(pa.table({"timestamp": [5]}), folder / "month=2024-01" / "part-x.parquet")
    assert_frame_equal(load_petastorm_batches_to_df(str(root)), whole)
