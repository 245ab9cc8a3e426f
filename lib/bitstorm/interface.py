"""The public Python interface: what `import bitstorm` offers to notebooks and programs."""

from __future__ import annotations

import atexit
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, Literal, Self, TypedDict, Unpack

from bitstorm.collect.backfill import Backfilled, Planned
from bitstorm.collect.csv_import.importer import Imported, Preview
from bitstorm.collect.csv_import.reading import ImportOptions
from bitstorm.collect.live import Collected
from bitstorm.context import Context
from bitstorm.core import third_party_noise, workspace
from bitstorm.core.arguments import Time, at_least, instant, length
from bitstorm.core.config import Loaded, load
from bitstorm.core.console import Console
from bitstorm.core.results import Listed, Named
from bitstorm.interface_models import Models
from bitstorm.pipelines import history as commits
from bitstorm.pipelines.backfill import backfill, plan
from bitstorm.pipelines.collect import collect
from bitstorm.pipelines.doctor import Checkup, doctor
from bitstorm.pipelines.gaps import Gaps, find_gaps
from bitstorm.pipelines.imports import import_file, preview
from bitstorm.pipelines.ingest import Ingested, ingest
from bitstorm.pipelines.replay import replay
from bitstorm.pipelines.retract import Retracted, retract
from bitstorm.pipelines.run import Outcome, run
from bitstorm.pipelines.schedule import Kept, collect_every
from bitstorm.pipelines.status import Status, status
from bitstorm.readers import DataSet, Indicators, Runs, mark_of
from bitstorm.store import maintenance


def open_workspace(
    path: str | Path = workspace.DEFAULT_WORKSPACE,
    settings: Mapping[str, Any] | None = None,
    *,
    config: str | Path | Sequence[str | Path] = (),
    environ: Mapping[str, str] | None = None,
    quiet: bool = False,
) -> Workspace:
    """A workspace at a local path or a `file:` URL. Starts nothing and writes nothing.

    The settings are the defaults, then the files `config`, then `environ`, then `settings`.

    Args:
        path: The folder; the first command that writes makes it.
        settings: Values by `section.key`, such as `{"backfill.days": 120}`.
        config: YAML files as those in `conf/`, later ones win.
        environ: Where `BITSTORM__SECTION__KEY` is looked up; pass `os.environ` to have what the
            command line has. By default no variable counts. The key of CoinGecko comes from
            `COINGECKO_API_KEY` of the process in any case.
        quiet: No progress on standard error; warnings are always there.

    Raises:
        BitstormError: A setting is wrong (the message names every one), or the path can't be used.
    """
    files = [Path(file) for file in ([config] if isinstance(config, str | Path) else config)]
    return Workspace(
        workspace.open_workspace(str(path)),
        partial(load, files=files, environ=environ or {}),
        settings or {},
        Console(quiet),
    )


class FileOptions(TypedDict, total=False):
    """How a CSV file is read: the options of the command `import`."""

    timestamp_column: str
    price_column: str
    unit: Literal["s", "ms", "us", "ns", "iso"]
    date_format: str
    stamp: Literal["close", "open"]
    bar: str
    timezone: str
    delimiter: str
    decimal: Literal[".", ","]
    format: Literal["auto"]


class Workspace(Models):
    """The commands as methods, the data sets, and the training runs.

    Commands take their options as keywords, and their results print as tables. A Spark session
    that exists is used and never stopped. Otherwise the first command that needs one starts it; it
    serves the later ones until `close`, or the end of a `with` block. Notes that libraries log of
    themselves are silenced, as on the command line. What a user can mend is a `BitstormError`.
    """

    def __init__(
        self,
        folders: workspace.Workspace,
        load: Callable[..., Loaded],
        values: Mapping[str, Any],
        console: Console,
    ) -> None:
        self._folders, self._load, self._console = folders, load, console
        self._values, self._loaded = dict(values), load(values=values)
        self._sessions = ExitStack()
        # A program that ends without `close`: Java must stop while Python's modules are there.
        atexit.register(self._sessions.close)

    @property
    def path(self) -> Path:
        """The folder of everything; `landing/`, `reports/` and so on lie in it."""
        return self._folders.root

    @property
    def settings(self) -> dict[str, Any]:
        """Every setting by `section.key`."""
        return {key: value for key, value, _ in self._loaded.rows()}

    @property
    def source(self) -> str:
        """Where the prices are from, in words to put beside them; CoinGecko wants to be named."""
        mark = mark_of(self._context())
        return mark.banner or mark.attribution or mark.origin

    @property
    def prices(self) -> DataSet:
        """What was observed (BitcoinSchema)."""
        return DataSet(self._context(), "prices")

    @property
    def indicators(self) -> Indicators:
        """The points of the grid (IndicatorSchema). `ws.indicators()` computes them."""
        return Indicators(self._context(), "indicators")

    @property
    def forecasts(self) -> DataSet:
        """Every forecast, stored before its outcome (ForecastSchema)."""
        return DataSet(self._context(), "forecasts")

    @property
    def runs(self) -> Runs:
        """The training runs, newest first."""
        return Runs(self._context())

    def collect(self) -> Collected:
        """Fetch the current price into a new batch."""
        return collect(self._context())

    def collect_every(self, every: str | timedelta) -> Kept:
        """Fetch it at each multiple of `every` (`"1h"`) until SIGINT or SIGTERM."""
        return collect_every(self._context(), length("every", every))

    def backfill(
        self,
        *,
        days: int | None = None,
        start: Time | None = None,
        until: Time | None = None,
        gaps: bool = False,
        again: bool = False,
    ) -> Backfilled:
        """Fetch the missing history.

        Args:
            days: Days of history; by default `backfill.days`.
            start: Its start, instead of `days`.
            until: Its end: ISO-8601, Unix time, or a datetime (naive: UTC); by default now.
            gaps: Only the missing hours that `gaps` lists.
            again: Also hours that earlier answers had, or that are confirmed empty.
        """
        wanted = _history(days, start, until)
        return backfill(self._context(), gaps_only=gaps, again=again, **wanted)

    def plan_backfill(
        self,
        *,
        days: int | None = None,
        start: Time | None = None,
        until: Time | None = None,
        gaps: bool = False,
        again: bool = False,
    ) -> Planned:
        """The requests of such a `backfill`, and their cost; no price is fetched."""
        wanted = _history(days, start, until)
        return plan(self._context(), gaps_only=gaps, again=again, **wanted)

    def import_file(self, file: str | Path, **options: Unpack[FileOptions]) -> Imported:
        """Import a price history of your own as a batch; `ingest` judges its rows."""
        return import_file(self._context(), _import_options(file, options))

    def preview_file(self, file: str | Path, **options: Unpack[FileOptions]) -> Preview:
        """The first rows as `import_file` would take them; nothing is written."""
        return preview(self._context(), _import_options(file, options))

    def ingest(self, *, replay_rejects: bool = False) -> Ingested:
        """Add the new batches to the prices; or check the refused rows again."""
        return (replay if replay_rejects else ingest)(self._context())

    def retract(self, batch: str, *, reason: str) -> Retracted:
        """Remove a wrong batch (its file name, or the first digits of its hash)."""
        return retract(self._context(), batch, reason=reason)

    def run(self, *, csv: str | Path | None = None, **options: Unpack[FileOptions]) -> Outcome:
        """Collect (or import `csv`), ingest, indicators, train, forecast, report."""
        if csv is None:
            return run(self._context())
        context = self._context(values={"source.mode": "csv", **self._values})
        return run(context, csv=_import_options(csv, options))

    def status(self, *, snapshot: str | None = None) -> Status:
        """Rows, span, gaps and age of the data."""
        return status(self._context(snapshot))

    def gaps(self, *, snapshot: str | None = None) -> Gaps:
        """The times that should have a price."""
        return find_gaps(self._context(snapshot))

    def history(self) -> Listed[commits.Commit]:
        """The snapshots, newest first."""
        return Listed(commits.history(self._context()))

    def trace(self, row: Time, *, snapshot: str | None = None) -> commits.Trace:
        """The batch and the line of the price at this time, to the millisecond."""
        return commits.trace(self._context(snapshot), instant("row", row))

    def verify(self) -> Named[maintenance.Verified]:
        """Check every hash and count again. Raises StoreError with every problem."""
        return Named(commits.verify(self._context()))

    def rollback(self, snapshot: str, *, reason: str = "") -> commits.Rolled:
        """Make an older snapshot the current one again."""
        return commits.rollback(self._context(), snapshot, reason=reason)

    def gc(self, *, keep: int = 10, hours: float = 24.0) -> Named[maintenance.Collected]:
        """Delete what neither the newest `keep` commits nor the last `hours` need."""
        keep, hours = at_least(1, "keep", keep), at_least(0, "hours", hours)
        return Named(commits.collect_garbage(self._context(), keep=keep, hours=hours))

    def doctor(self, *, cluster: bool = False) -> Checkup:
        """Look for what would stop a command on this machine; `healthy` says so. With `cluster`
        also ask each executor for its Python and packages."""
        return doctor(self._context(), cluster=cluster)

    def close(self) -> None:
        """Stop the Spark session that this workspace started; a later command starts another."""
        self._sessions.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<bitstorm.Workspace {self.path}>"

    def _context(
        self, snapshot: str | None = None, values: Mapping[str, Any] | None = None
    ) -> Context:
        """What a command is given; with `values`, under other settings."""
        third_party_noise.install_filters()
        third_party_noise.hush_loggers()
        loaded = self._loaded if values is None else self._load(values=values)
        folders = self._folders.with_store(loaded.settings.store.url)
        given = (folders, loaded.settings, self._console, snapshot)
        return Context(*given, sessions=self._sessions, origins=loaded.origins)


def _import_options(file: str | Path, options: FileOptions) -> ImportOptions:
    given: dict[str, Any] = dict(options)
    return ImportOptions(Path(file), auto=given.pop("format", None) == "auto", **given)


def _history(days: int | None, start: Time | None, until: Time | None) -> dict[str, Any]:
    return {
        "days": None if days is None else at_least(1, "days", days),
        "from_ms": None if start is None else instant("start", start),
        "until_ms": None if until is None else instant("until", until),
    }
