"""The seal refuses each way in which a folder can be wrong, and says what it found and where."""

from __future__ import annotations

import math
import shutil
import struct

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bitstorm.core.errors import BitstormError, SealBroken, SnapshotDamaged
from bitstorm.core.schema import PRICES
from bitstorm.store import seal, snapshots
from bitstorm.store.digest import dataset_digest
from bitstorm.store.publish import Change
from bitstorm.store.seal import seal_folder
from faults.publishing import (
    FEBRUARY,
    HOUR,
    JANUARY,
    SCHEMA,
    batch,
    beside,
    job,
    lineage_rows,
    month_of,
    price_rows,
    prices_digest,
    publish,
    put,
    rows_of,
    stored_names,
    verified,
    whole,
)

GOOD = {JANUARY: 1.0, JANUARY + HOUR: 2.0}


def refused(root, write, match, parent=None, error: type[BitstormError] = SealBroken):
    """The publish is refused, and the root is as before: nothing new can be seen or is left."""
    before = stored_names(root)
    with pytest.raises(error, match=match):
        publish(root, write, parent)
    assert [n for n in stored_names(root) if n not in before and "/" in n] == []
    assert snapshots.current(root) == parent


def also(act, rows=GOOD):
    """A good write, and then something that does not belong there."""

    def write(draft):
        change = whole(rows)(draft)
        act(draft.folder)
        return change

    return write


def only(month, rows, **how):
    def write(draft):
        put(draft.folder, month, rows, **how)
        return Change(frozenset({month}))

    return write


@pytest.mark.parametrize(
    "name",
    [
        "x_metadata",
        "_metadata.bak",
        ".tmp",
        "notes.txt",
        "_temporary",
        "month=2021-01/part-1.parquet.tmp",
        "month=2021-01/.tmp-part-1.parquet",
        "month=2021-01/_metadata",
        "month=2021-01/.hidden",
    ],
)
def test_a_stray_file(root, name):
    refused(root, also(lambda folder: (folder / name).touch()), f"stray file {name}")


@pytest.mark.parametrize(
    "name",
    ["_temporary", ".tmp", "month=2021-13", "month=2021", "year=2021", "month=2021-01/deeper"],
)
def test_a_stray_folder(root, name):
    refused(root, also(lambda folder: (folder / name).mkdir()), f"stray folder {name}")


@pytest.mark.parametrize("name", ["part-1.parquet", "month=2021-01/data.parquet"])
def test_a_parquet_file_by_another_name(root, name):
    def act(folder):
        shutil.copyfile(folder / "month=2021-01" / "part-0.parquet", folder / name)

    refused(root, also(act), f"stray file {name}")


def test_a_part_file_in_a_stray_folder(root):
    def act(folder):
        put(folder / "_temporary", "2021-01", price_rows({JANUARY + 5: 1.0}))

    refused(root, also(act), "stray folder _temporary")


def test_a_symbolic_link(root):
    def act(folder):
        (folder / "month=2021-01" / "part-1.parquet").symlink_to("part-0.parquet")

    refused(root, also(act), "link, month=2021-01/part-1.parquet")


def test_what_spark_leaves_beside_its_files_is_removed(root):
    def act(folder):
        (folder / "_SUCCESS").touch()
        for name in ("._SUCCESS.crc", "._metadata.crc", "month=2021-01/.part-0.parquet.crc"):
            (folder / name).write_bytes(b"crc")

    found = publish(root, also(act))
    assert sorted(p.name for p in found.folder.rglob("*") if p.is_file()) == [
        "_common_metadata",
        "_metadata",
        "part-0.parquet",
    ]


@pytest.mark.parametrize(
    ("rows", "match"),
    [
        ({JANUARY: None}, "1 values of price .*month=2021-01 are null"),
        ({JANUARY: 1.0, JANUARY + 1: math.nan}, "1 values of price .* not finite, > 0"),
        ({JANUARY: math.inf}, "1 values of price .* not finite"),
        ({JANUARY: 0.0}, "1 values of price"),
        ({JANUARY: -3.0, JANUARY + 1: -0.0}, "2 values of price"),
        ({FEBRUARY: 1.0}, "month=2021-01 holds timestamps of another month"),
        ({JANUARY - 1: 1.0, JANUARY: 1.0}, "timestamps of another month"),
        ({}, "0 rows"),
    ],
)
def test_rows_that_break_a_rule(root, rows, match):
    refused(root, only("2021-01", price_rows(rows)), match)


def test_the_first_and_last_millisecond_of_a_month_are_its_own(root):
    publish(root, only("2021-01", price_rows({JANUARY: 1.0, FEBRUARY - 1: 2.0})))


def test_a_null_timestamp(root):
    rows = price_rows(GOOD).set_column(0, "timestamp", pa.array([JANUARY, None], pa.int64()))
    refused(root, only("2021-01", rows), "1 values of timestamp .* are null")


@pytest.mark.parametrize("order", [[0, 0, 1], [0, 1, 1], [1, 0]])
def test_a_repeated_key_or_rows_out_of_order(root, order):
    refused(
        root,
        only("2021-01", price_rows(GOOD).take(pa.array(order))),
        "repeats a timestamp or is out of order",
    )


def test_a_key_that_two_files_of_a_month_share(root):
    def act(folder):
        put(folder, "2021-01", price_rows({JANUARY + HOUR: 9.0}), "part-1.parquet")

    refused(root, also(act), "repeats a timestamp")


def test_two_files_of_a_month_that_interleave_are_one_month(root):
    def write(draft):
        put(draft.folder, "2021-01", price_rows({JANUARY: 1.0, JANUARY + 2: 3.0}))
        put(draft.folder, "2021-01", price_rows({JANUARY + 1: 2.0}), "part-1.parquet")
        return Change(frozenset({"2021-01"}))

    found = publish(beside(root, "a"), write)
    other = publish(beside(root, "b"), whole({JANUARY: 1.0, JANUARY + 1: 2.0, JANUARY + 2: 3.0}))
    assert found.manifest.digest == other.manifest.digest


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda t: t.drop_columns(["market_cap"]), "columns"),
        (lambda t: t.append_column("colour", pa.nulls(t.num_rows, pa.string())), "columns"),
        (lambda t: t.select(list(reversed(t.column_names))), "columns"),
        (lambda t: t.rename_columns([*t.column_names[:-1], "change"]), "columns"),
        (
            lambda t: t.set_column(1, "price", t["price"].cast(pa.float64())),
            "price of .*part-0.parquet is double, expected float",
        ),
        (
            lambda t: t.set_column(0, "timestamp", t["timestamp"].cast(pa.timestamp("ms"))),
            "timestamp of",
        ),
    ],
)
def test_another_schema(root, change, match):
    refused(root, only("2021-01", change(price_rows(GOOD))), match)


def test_one_file_of_another_schema_among_good_ones(root):
    def act(folder):
        put(folder, "2021-02", price_rows({FEBRUARY: 1.0}).drop_columns(["market_cap"]))

    refused(root, also(act), "month=2021-02/part-0.parquet")


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1 but no footer, really PAR1"])
def test_a_file_that_is_no_parquet(root, content):
    def act(folder):
        (folder / "month=2021-01" / "part-1.parquet").write_bytes(content)

    refused(root, also(act), "part-1.parquet")


def test_a_page_that_does_not_read(root):
    def act(folder):
        path = folder / "month=2021-01" / "part-0.parquet"
        content = bytearray(path.read_bytes())
        content[4:60] = b"\xff" * 56
        path.write_bytes(content)

    refused(root, also(act), "part-0.parquet")


# The summaries are written by the publish itself: these look at the seal alone.


@pytest.fixture
def folder(tmp_path):
    for start, month in ((JANUARY, "2021-01"), (FEBRUARY, "2021-02")):
        put(tmp_path, month, price_rows({start: 1.0}))
    summarize(tmp_path)
    return tmp_path


def summarize(folder, paths=("month=2021-01/part-0.parquet", "month=2021-02/part-0.parquet")):
    seal.write_metadata(folder, paths, PRICES, SCHEMA)


def sealed(folder, **options):
    return seal_folder(folder, PRICES, **{"inherited": {}, **options})


def test_a_good_folder_is_sealed_with_its_files_and_digests(folder):
    found = sealed(folder)
    assert [f.path for f in found.files] == [
        "month=2021-01/part-0.parquet",
        "month=2021-02/part-0.parquet",
    ]
    rows = [(start, 1.0, None, None, None) for start in (JANUARY, FEBRUARY)]
    assert sorted(found.digests) == ["2021-01", "2021-02"]
    assert dataset_digest(found.digests) == prices_digest(rows)


def test_a_part_file_that_metadata_does_not_list(folder):
    put(folder, "2021-02", price_rows({FEBRUARY + 1: 1.0}), "part-1.parquet")
    with pytest.raises(SealBroken, match=r"_metadata .*does not list.*part-1\.parquet"):
        sealed(folder)


def test_a_part_file_that_metadata_lists_and_is_not_there(folder):
    (folder / "month=2021-02" / "part-0.parquet").unlink()
    with pytest.raises(SealBroken, match=r"_metadata .*does not list.*month=2021-02"):
        sealed(folder)


def test_metadata_with_another_count_for_a_file(folder):
    put(folder, "2021-02", price_rows({FEBRUARY: 1.0, FEBRUARY + 1: 2.0}))
    with pytest.raises(SealBroken, match=r"_metadata .*does not list"):
        sealed(folder)


@pytest.mark.parametrize("name", ["_metadata", "_common_metadata"])
@pytest.mark.parametrize("content", [None, b"", b"PAR1"])
def test_a_summary_that_is_gone_or_cut(folder, name, content):
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_bytes(content)
    with pytest.raises(SealBroken, match=r"summary .*cannot be read"):
        sealed(folder)


def test_common_metadata_without_petastorms_schema(folder):
    pq.write_metadata(seal.arrow_schema(PRICES), folder / "_common_metadata")
    with pytest.raises(SealBroken, match=r"_common_metadata .*no schema"):
        sealed(folder)


def test_a_lineage_may_have_no_summaries(folder, tmp_path_factory):
    lineage = tmp_path_factory.mktemp("lineage")
    for start, month in ((JANUARY, "2021-01"), (FEBRUARY, "2021-02")):
        put(lineage, month, lineage_rows({start: "b"}))
    found = sealed(folder, lineage=(lineage, {}))
    assert [f.path for f in found.lineage] == [f.path for f in found.files]
    shutil.copy(folder / "_common_metadata", lineage)
    with pytest.raises(SealBroken, match="stray file _common_metadata"):
        sealed(folder, lineage=(lineage, {}))


def test_an_inherited_file_that_did_not_arrive(folder):
    records = {file.path: file for file in sealed(folder).files}
    shutil.rmtree(folder / "month=2021-01")
    summarize(folder, ["month=2021-02/part-0.parquet"])
    with pytest.raises(SealBroken, match=r"lacks month=2021-01/part-0.parquet"):
        sealed(folder, inherited={p: records[p] for p in ["month=2021-01/part-0.parquet"]})


@pytest.mark.parametrize("how", ["cut", "longer", "footer", "others"])
def test_an_inherited_file_unlike_its_record_asks_for_verify(folder, how):
    records = {file.path: file for file in sealed(folder).files}
    path = folder / "month=2021-01" / "part-0.parquet"
    content = path.read_bytes()
    if how == "cut":
        path.write_bytes(content[:-1])
    elif how == "longer":
        path.write_bytes(content + b"\0")
    elif how == "footer":
        path.write_bytes(content[:-40] + b"\0" * 36 + content[-4:])
    else:
        put(folder, "2021-01", price_rows(GOOD))
    with pytest.raises(SealBroken, match=r"month=2021-01/part-0\.parquet .*damaged.*verify"):
        sealed(folder, inherited=records)


def test_inherited_files_are_not_read_again(folder, monkeypatch):
    records = {file.path: file for file in sealed(folder).files}
    monkeypatch.setattr(pq, "ParquetFile", lambda *_, **__: pytest.fail("rows were read"))
    found = sealed(folder, inherited=records)
    assert {f.path: f for f in found.files} == records
    assert found.digests == {}


def test_a_month_that_mixes_new_and_inherited_files(folder):
    records = {file.path: file for file in sealed(folder).files}
    put(folder, "2021-01", price_rows({JANUARY + 1: 1.0}), "part-1.parquet")
    summarize(
        folder,
        [
            "month=2021-01/part-0.parquet",
            "month=2021-01/part-1.parquet",
            "month=2021-02/part-0.parquet",
        ],
    )
    with pytest.raises(SealBroken, match=r"months 2021-01 .*mix"):
        sealed(folder, inherited=records)


# Against the parent, the lineage and the batches.


def test_a_parent_key_that_is_lost_without_a_word(root):
    parent = publish(root, whole(GOOD))
    fewer = {JANUARY: 1.0}
    refused(root, whole(fewer), rf"1 rows of month 2021-01 .*{JANUARY + HOUR}", parent)
    found = publish(root, whole(fewer, may_lose_keys=True), parent)
    assert found.manifest.rows == 1


def test_a_month_that_is_lost_whole(root):
    parent = publish(root, whole({**GOOD, FEBRUARY: 1.0}))

    def write(draft):
        return Change(frozenset({"2021-02"}))

    refused(root, write, "1 rows of month 2021-02", parent)


def test_a_month_that_is_written_and_not_declared(root):
    parent = publish(root, whole(GOOD))

    def write(draft):
        put(draft.folder, "2021-01", price_rows({JANUARY + 7: 1.0}), "part-7.parquet")
        return Change(frozenset())

    refused(root, write, "months 2021-01 .*mix", parent)


def test_a_merge_over_a_damaged_parent_does_not_seal_the_damage(tmp_path):
    def write(draft):
        for start, month in ((JANUARY, "2021-01"), (FEBRUARY, "2021-02")):
            rows = {start + n: 1000.0 + n for n in range(50)}
            put(draft.folder, month, price_rows(rows), compression="none", use_dictionary=False)
        return Change(frozenset({"2021-01", "2021-02"}))

    parent = publish(tmp_path, write)
    path = parent.files[0]
    price = struct.pack("<f", 1025.0)
    path.write_bytes(path.read_bytes().replace(price, struct.pack("<f", 4025.0)))
    stored = dict(rows_of(parent))
    assert stored[JANUARY + 25] == 4025.0  # it reads well, and it is wrong

    def again(month):
        return whole(
            {s: p for s, p in {**stored, FEBRUARY - 1: 5.0}.items() if month_of(s) == month}
        )

    refused(tmp_path, again("2021-01"), "month=2021-01/part-0", parent, SnapshotDamaged)
    # A commit to another month goes on; `verify` then names every snapshot with the file.
    assert publish(tmp_path, again("2021-02"), parent).manifest.sequence == 2


def with_lineage(rows, owners, month="2021-01", **tally):
    told = {"name": "b", "read": len(rows), "accepted": len(rows), "duplicate": 0, "refused": 0}
    told.update(tally)

    def write(draft):
        put(draft.folder, month, price_rows(rows))
        if owners:
            put(draft.lineage, month, lineage_rows(owners))
        return Change(
            frozenset({month}), with_lineage=True, batches={"b" * 64: told}, ledger={"b" * 64: told}
        )

    return write


@pytest.mark.parametrize(
    "owners",
    [
        {},
        {JANUARY: "b"},
        {JANUARY: "b", JANUARY + HOUR + 1: "b"},
        {JANUARY: "b", JANUARY + HOUR: "b", JANUARY + 2 * HOUR: "b"},
    ],
)
def test_lineage_of_other_keys(root, owners):
    refused(root, with_lineage(GOOD, owners), "lineage of month 2021-01 .*other keys")


def test_lineage_without_its_batch(root):
    refused(
        root,
        with_lineage(GOOD, {JANUARY: None, JANUARY + HOUR: "b"}),
        "1 values of batch .* are null",
    )


@pytest.mark.parametrize(
    "tally",
    [
        {"read": 3},
        {"accepted": 1},
        {"duplicate": 1},
        {"superseded": 1},
        {"refused": 1},
        {"read": 0},
    ],
)
def test_a_tally_that_does_not_add_up(root, tally):
    owners = dict.fromkeys(GOOD, "b")
    refused(root, with_lineage(GOOD, owners, **tally), "the counts of batch b differ")


def test_a_good_commit_with_lineage_is_published(root):
    batches = [batch("a", JANUARY, 3), batch("b", FEBRUARY, 2)]
    job(root, batches[:1])
    job(root, batches)
    verified(root, batches)
