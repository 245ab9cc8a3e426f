"""The commands with `store.url`: data sets in a bucket of a real S3 server, moto's."""

from __future__ import annotations

from pathlib import Path

import pytest

from bitstorm.context import Context
from bitstorm.core.errors import UsageError, WorkspaceError
from bitstorm.core.file_system import FileSystem
from bitstorm.pipelines import history
from bitstorm.pipelines.doctor import doctor
from bitstorm.pipelines.indicators import indicators
from bitstorm.pipelines.ingest import ingest
from bitstorm.pipelines.retract import retract
from bitstorm.pipelines.status import status
from bitstorm.readers import DataSet
from bitstorm.store import snapshots
from bitstorm.store.files import load_petastorm_batches_to_df
from bitstorm.utils import BitcoinSchema, make_batch_writer
from landed import HOUR, collected, context_of
from s3_server import BUCKET, running

pytestmark = pytest.mark.slow
START = 1_609_459_200_000
URL = f"s3://{BUCKET}/bitstorm"


def machine(folder: Path) -> Context:
    """A workspace of its own with the data sets in the bucket."""
    context = context_of(folder)
    return Context(context.workspace.with_store(URL), context.settings, context.console)


def prices(*rows: tuple[int, float]) -> str:
    return "timestamp,price\n" + "".join(f"{START + h * HOUR},{p}\n" for h, p in rows)


def test_two_machines_work_on_one_store(spark_session: object, tmp_path: Path) -> None:
    local = context_of(tmp_path / "local")
    with running():
        here, there = machine(tmp_path / "here"), machine(tmp_path / "there")
        first = prices(*((hour, 100.0 + hour) for hour in range(800)))
        second = prices(*((hour, 90.0 + hour) for hour in range(750, 900)))
        for context, name, text in ((here, "a.csv", first), (there, "b.csv", second)):
            for each in (context, local):
                collected(each.workspace.landing, name, text)
                ingest(each)
        wanted = snapshots.required(local.workspace.prices).manifest
        found = snapshots.required(here.workspace.prices)
        assert (found.manifest.digest, found.manifest.sequence) == (wanted.digest, 2)
        assert not (tmp_path / "here" / "prices").exists()
        assert ingest(here).idle

        for each in (here, local):
            indicators(each)
        made = snapshots.required(there.workspace.indicators)
        assert made.manifest.digest == (
            snapshots.required(local.workspace.indicators).manifest.digest
        )
        assert indicators(there).idle
        frame = load_petastorm_batches_to_df(str(made.folder))
        assert len(frame) == made.manifest.rows
        assert DataSet(there, "prices").to_spark().count() == 900
        assert status(there).prices is not None
        stated = {check.name: str(check) for check in doctor(machine(tmp_path / "new")).checks}
        assert stated["workspace"] == f"{URL}: prices {found.id}, indicators {made.id}"

        removed = retract(there, "b.csv", reason="a wrong feed")
        assert removed.absent_batches == 1 and removed.restored == 0
        assert history.trace(here, START).name == "a.csv"
        assert history.rollback(here, found.id, reason="it was right").sequence == 4
        assert snapshots.required(there.workspace.prices).id == found.id
        assert history.verify(there)["prices"].snapshots == 4
        assert history.collect_garbage(here, keep=1, hours=0)["prices"].snapshots
        assert [c.operation for c in history.history(there)] == ["rollback", "indicators"]
        third = machine(tmp_path / "third")
        collected(third.workspace.landing, "c.csv", prices((2000, 5.0)), coin="ethereum")
        (refused,) = ingest(third).refused_batches
        assert refused.rule == "origin" and "bitcoin" in refused.reason


def test_a_batch_writer_does_not_write_there(tmp_path: Path) -> None:
    root = machine(tmp_path).workspace.prices
    assert isinstance(root, FileSystem)
    with pytest.raises(UsageError, match=f"{URL}/prices is not a local file; expected a local"):
        make_batch_writer(root, BitcoinSchema)


@pytest.mark.parametrize("url", ["hdfs://name/x", "http://host/x", "s3://", "/folder", "gs://a/b"])
def test_another_store_is_refused(tmp_path: Path, url: str) -> None:
    workspace = context_of(tmp_path).workspace
    with pytest.raises(WorkspaceError, match=f"store.url is {url}; expected s3://BUCKET/FOLDER"):
        workspace.with_store(url)
