"""`import bitstorm`: its names, what it promises before Spark runs, and the whole way in a session
that exists."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest

import bitstorm
import prepared
from bitstorm.core.config import load
from bitstorm.core.errors import KeyProblem, SettingsError
from bitstorm.core.results import Listed, Named, Result
from bitstorm.model import runs
from bitstorm.pipelines.backtest import Backtested
from bitstorm.pipelines.forecast_score import Scored
from bitstorm.pipelines.tune import Tuned
from landed import HOUR

LIBRARY = Path(bitstorm.__file__).parents[1]
SMALL = {
    "training.look_back": 8,
    "training.units": 8,
    "training.batch_size": 64,
    "indicators.windows": [2, 3, 24],
    "backfill.days": 30,
}


def names_of(thing: type) -> list[str]:
    return sorted(name for name in dir(thing) if not name.startswith("_"))


def test_the_public_names_are_these():
    assert bitstorm.__all__ == [
        "BitstormError", "DataSet", "Forecast", "Indicators", "NothingToDo", "Run", "Runs",
        "SourceError", "StoreError", "UsageError", "Workspace", "open_workspace",
    ]  # fmt: skip
    assert all(getattr(bitstorm, name).__name__ == name for name in bitstorm.__all__)
    assert set(bitstorm.__all__) <= set(dir(bitstorm))
    with pytest.raises(AttributeError, match="'bitstorm' has no attribute 'open_workspaces'"):
        bitstorm.open_workspaces  # noqa: B018 - the access itself raises


def test_the_public_names_of_the_classes_are_these():
    assert names_of(bitstorm.Workspace) == [
        "backfill", "backtest", "check_leakage", "check_lookahead", "close", "collect",
        "collect_every", "doctor", "forecast", "forecasts", "gaps", "gc", "history", "import_file",
        "indicators", "ingest", "path", "plan_backfill", "preview_file", "prices", "prove_verdict",
        "report", "reproduce", "retract", "rollback", "run", "runs", "score", "settings", "source",
        "stats", "status", "trace", "train", "tune", "verdict", "verify",
    ]  # fmt: skip
    reading = [
        "at", "batch_reader", "columns", "facts", "id", "path", "rows", "span", "to_pandas",
        "to_spark",
    ]  # fmt: skip
    assert names_of(bitstorm.DataSet) == reading
    assert set(names_of(bitstorm.Indicators)) - set(reading) == {
        "plot_autocorrelation", "plot_candles", "plot_drawdown", "plot_hours", "plot_price",
        "plot_returns", "plot_volatility",
    }  # fmt: skip
    assert names_of(bitstorm.Run) == [
        "facts", "history", "metrics", "model", "plot", "record", "state",
    ]  # fmt: skip
    assert names_of(bitstorm.Runs) == ["compare", "count", "index"]
    assert names_of(bitstorm.Forecast) == [
        "facts", "indicators", "plot", "plot_test", "table", "verdict",
    ]  # fmt: skip
    backtest = ["plot_coverage", "plot_errors", "plot_evidence", "plot_folds", "plot_skill"]
    for result, own in ((Backtested, backtest), (Tuned, ["plot"]), (Scored, ["plot"])):
        assert [name for name in names_of(result) if name.startswith("plot")] == own


def test_what_is_public_is_documented():
    assert bitstorm.open_workspace.__doc__
    for name in ("DataSet", "Forecast", "Indicators", "Run", "Runs", "Workspace"):
        thing = getattr(bitstorm, name)
        members = [thing, *(member for n, member in vars(thing).items() if not n.startswith("_"))]
        assert [member for member in members if not member.__doc__] == []


def test_opening_starts_and_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    before = (threading.enumerate(), dict(os.environ), list(warnings.filters))
    ws = bitstorm.open_workspace()
    assert ws.path == tmp_path / "workspace"
    assert (threading.enumerate(), dict(os.environ), list(warnings.filters)) == before
    assert repr(ws) == f"<bitstorm.Workspace {tmp_path}/workspace>"
    with ws:
        assert list(tmp_path.iterdir()) == []


def test_an_empty_workspace_says_what_to_do(tmp_path: Path) -> None:
    ws = bitstorm.open_workspace(tmp_path / "new")
    assert repr(ws.prices) == "data set  prices\nsnapshot  none"
    assert (len(ws.runs), repr(ws.runs), repr(ws.history())) == (0, "none", "none")
    for read in (ws.prices.to_pandas, ws.prices.batch_reader, lambda: ws.prices.path):
        with pytest.raises(bitstorm.StoreError, match="run `bitstorm ingest` first"):
            read()
    with pytest.raises(bitstorm.BitstormError, match="no snapshot '00000001-000000000000'"):
        ws.prices.at("00000001-000000000000")
    assert not (tmp_path / "new").exists()


def test_a_run_without_an_epoch_says_so(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints" / "20260101T000000Z-abcdef"
    folder.mkdir(parents=True)
    runs.write(folder, {"created_at": "2026-01-01T00:00:00Z"}, state=runs.FAILED)
    (run,) = bitstorm.open_workspace(tmp_path).runs
    assert (run.name, run.state) == (folder.name, "failed")
    for look in (run.plot, lambda: run.history):
        with pytest.raises(bitstorm.BitstormError, match="is failed and has no complete epoch"):
            look()


def test_wrong_settings_are_refused_as_on_the_command_line(tmp_path: Path) -> None:
    wrong = {"training.epoch": 3, "backfill.days": 0, "grid.frequency": "soon"}
    with pytest.raises(SettingsError) as typed:
        bitstorm.open_workspace(tmp_path, settings=wrong)
    with pytest.raises(SettingsError) as written:
        load(overrides=[f"{key}={value}" for key, value in wrong.items()])
    assert str(typed.value).replace("(from settings)", "(from --set)") == str(written.value)
    assert "training.epoch (from settings): there is no such setting; did you mean epochs?" in str(
        typed.value
    )
    with pytest.raises(bitstorm.UsageError, match=r"found 'epochs'; expected section\.key"):
        bitstorm.open_workspace(tmp_path, settings={"epochs": 3})
    with pytest.raises(bitstorm.UsageError, match=r"training\.epoch \(from settings\)"):
        bitstorm.open_workspace(tmp_path).train(epoch=3)


def test_settings_come_in_layers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BITSTORM__BACKFILL__DAYS", "77")
    file = tmp_path / "mine.yaml"
    file.write_text("backfill: {days: 99}\ntraining: {epochs: 9}\n")

    def days(**given: Any) -> Any:
        return bitstorm.open_workspace(tmp_path, **given).settings["backfill.days"]

    assert days() == 365  # no variable counts by itself
    assert days(environ=os.environ) == 77
    assert days(config=file) == days(config=[str(file)]) == 99
    assert days(config=file, environ=os.environ) == 77
    given = {"backfill.days": 120, "spark.conf.spark.ui.port": 4050}
    assert days(config=file, environ=os.environ, settings=given) == 120
    settings = bitstorm.open_workspace(tmp_path, given, config=file).settings
    assert settings["spark.conf"] == {"spark.ui.port": 4050}
    assert settings["training.epochs"] == 9


def test_the_key_comes_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COINGECKO_API_KEY", raising=False)
    # Port 9 of loopback: nothing may be asked, and nothing would answer.
    live = {"source.mode": "coingecko", "source.plan": "demo", "source.retries": 0}
    with pytest.raises(KeyProblem, match="COINGECKO_API_KEY"):
        bitstorm.open_workspace(tmp_path, live).collect()
    monkeypatch.setenv("COINGECKO_API_KEY", "CG-a-key-for-this-test-00000")
    live["source.base_url"] = "http://127.0.0.1:9/api/v3"
    with pytest.raises(bitstorm.SourceError, match=r"127\.0\.0\.1:9"):
        bitstorm.open_workspace(tmp_path, live).collect()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda ws: ws.backfill(days=0), "days: found 0, expected at least 1"),
        (lambda ws: ws.plan_backfill(until="soon"), "until: 'soon' is not a time"),
        (lambda ws: ws.backfill(start="soon"), "start: 'soon' is not a time"),
        (lambda ws: ws.backfill(start=1_772_366_400, days=3, again=True), "expected one of them"),
        (lambda ws: ws.collect_every("often"), "every: 'often' is not a duration"),
        (lambda ws: ws.collect_every(timedelta(0)), "every: '0ms' is not a duration"),
        (lambda ws: ws.stats(bars=-1), "bars: found -1, expected at least 0"),
        (lambda ws: ws.check_lookahead(cuts=0), "cuts: found 0, expected at least 1"),
        (lambda ws: ws.prove_verdict(markets=0), "markets: found 0, expected at least 1"),
        (lambda ws: ws.check_leakage(cuts=0), "cuts: found 0, expected at least 1"),
        (lambda ws: ws.check_leakage(plant="all"), "plant: found 'all', expected one of scaler"),
        (lambda ws: ws.gc(keep=0), "keep: found 0, expected at least 1"),
        (lambda ws: ws.trace("now"), "row: 'now' is not a time"),
        (lambda ws: ws.train(accept_snapshot=True), "accept_snapshot belongs to resume"),
    ],
)
def test_wrong_arguments_are_refused(
    tmp_path: Path, call: Callable[[bitstorm.Workspace], object], message: str
) -> None:
    with pytest.raises(bitstorm.UsageError, match=message):
        call(bitstorm.open_workspace(tmp_path))


def test_a_plan_takes_times_of_every_kind(tmp_path: Path) -> None:
    ws = bitstorm.open_workspace(tmp_path / "new", quiet=True)
    moment = datetime(2026, 3, 1, 12, tzinfo=UTC)
    spellings = ("2026-03-01T12:00:00Z", moment, moment.replace(tzinfo=None), 1_772_366_400)
    plans = [ws.plan_backfill(days=2, until=until) for until in spellings]
    assert {plan.wanted.end for plan in plans} == {1_772_366_400_000}
    begun = ws.plan_backfill(start="2026-02-27T12:00:00Z", until=moment, gaps=False, again=True)
    assert begun == plans[0]
    assert repr(plans[0]).splitlines()[0] == (
        "wanted   2026-02-27T12:00:00Z to 2026-03-01T12:00:00Z"
    )


@dataclass(frozen=True, repr=False)
class Sample(Result):
    name: str
    first_ms: int | None
    age_ms: int
    rows: int
    share: float
    idle: bool
    parts: tuple[Any, ...]
    warned: dict[str, int]


SAMPLE = Sample(
    "<b>&", 1_704_067_200_000, 3_723_000, 12_345, 0.25, False, (1, 2, 3, 4), {"price_jump": 2}
)


def test_a_result_prints_as_a_table():
    assert str(SAMPLE) == repr(SAMPLE)
    assert repr(SAMPLE).splitlines() == [
        "name    <b>&",
        "first   2024-01-01T00:00:00Z",
        "age     1 h 2 min",
        "rows    12,345",
        "share   0.25",
        "idle    no",
        "parts   1; 2; 3; … (4 in all)",
        "warned  price jump 2",
    ]
    html = SAMPLE._repr_html_()
    assert "<b>" not in html
    assert html.startswith("<table><tr><td") and html.count("<tr>") == 8
    assert '<td style="text-align: left">&lt;b&gt;&amp;</td>' in html


def test_many_results_print_as_one_table():
    lines = repr(Listed([SAMPLE, SAMPLE])).splitlines()
    assert len(lines) == 3
    assert lines[0].split()[:3] == ["name", "first", "age"]
    assert Listed([SAMPLE])._repr_html_().count("<th") == 8
    assert repr(Named({"prices": SAMPLE})).startswith("prices  name <b>&, first 2024-01-01T00")
    assert "<b>" not in Listed([SAMPLE])._repr_html_() + Named({"<b>": SAMPLE})._repr_html_()
    assert (Listed([1]) == [1], Named({"a": 1}) == {"a": 1}) == (True, True)


@pytest.mark.slow
def test_a_users_program_is_checked_by_its_types(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import bitstorm\n"
        "with bitstorm.open_workspace('w', {'backfill.days': 3}, quiet=True) as ws:\n"
        "    rows: int = ws.ingest().rows + ws.indicators().rows + ws.prices.rows\n"
        "    name: str = ws.train(epochs=2).name + ws.runs[0].state + ws.forecast().verdict\n"
        "    ws.import_file('mine.csv', unit='ms', stamp='open', bar='1h')\n"
        "    ws.import_file('mine.csv', unit='minutes')  # wrong\n"
        "    ws.backfill(dayz=3)  # wrong\n"
    )
    # Ours leave out the types of other packages, which take longer than the rest.
    settings = ("--config-file", LIBRARY.parent / "pyproject.toml")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *settings, "--cache-dir", "cache", program],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "MYPYPATH": str(LIBRARY)},
    )
    errors = [line for line in done.stdout.splitlines() if ": error:" in line]
    assert [line.split(":")[1] for line in errors if "program.py" in line] == ["6", "7"], done


@pytest.mark.slow
def test_it_makes_one_session_and_ends_it(
    indicators_workspace: Path, workspace_copy: Callable[[Path], Path]
) -> None:
    code = (
        "import sys, bitstorm\n"
        "from pyspark import SparkContext\n"
        "ws = bitstorm.open_workspace(sys.argv[1], quiet=True)\n"
        "first, second = ws.prices.to_spark(), ws.indicators.to_spark()\n"
        "assert first.sparkSession is second.sparkSession\n"
        "print(first.count(), second.count())\n"
        "print(first.sparkSession.conf.get('spark.sql.shuffle.partitions'))\n"
        "assert first.sparkSession.sparkContext.uiWebUrl is None\n"
        "ws.close()\n"
        "assert SparkContext._active_spark_context is None\n"
        "print(ws.prices.to_spark().count())\n"  # and it is left open
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(workspace_copy(indicators_workspace))],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(LIBRARY)},
    )
    rows, points = len(prepared.hours()), prepared.HOURS - 9
    partitions = max(4, 2 * (os.cpu_count() or 1))
    assert (done.stdout, done.stderr) == (f"{rows} {points}\n{partitions}\n{rows}\n", "")


@pytest.mark.slow
def test_the_whole_way_in_a_session_that_exists(tmp_path: Path, spark_session: Any) -> None:
    import numpy as np

    zone = spark_session.conf.get("spark.sql.session.timeZone")
    with bitstorm.open_workspace(tmp_path / "w", settings=SMALL, quiet=True) as ws:
        assert ws.source == "SIMULATED market (seed 7): not real prices"
        ws.backfill(days=10)
        first = ws.ingest()
        assert first.snapshot is not None
        assert (first.snapshot, first.rows) == (ws.prices.id, ws.prices.rows)
        assert ws.backfill().points > 400
        second = ws.ingest()
        computed = ws.indicators()
        assert (computed.idle, ws.indicators().idle) == (False, True)

        # The files themselves are the independent reading.
        files = sorted(ws.prices.path.rglob("part-*.parquet"))
        stored = pd.concat([pq.ParquetFile(file).read().to_pandas() for file in files])
        months = [file.parent.name.removeprefix("month=") for file in files for _ in pq_rows(file)]
        frame = ws.prices.to_pandas()
        assert frame["timestamp"].tolist() == stored["timestamp"].tolist()
        assert frame["price"].tolist() == stored["price"].tolist()
        assert frame["month"].tolist() == months
        assert (len(frame), frame.attrs) == (second.rows, {"source": "simulated:7"})
        assert list(frame.columns) == ws.prices.columns
        assert list(ws.prices.to_pandas(["price", "month"]).columns) == ["price", "month"]
        with pytest.raises(bitstorm.UsageError, match="has no column close; it has timestamp"):
            ws.prices.to_pandas(["close"])
        last_ms = frame["timestamp"].iloc[-1]
        assert ws.prices.span is not None
        assert ws.prices.span[1] == datetime.fromtimestamp(last_ms / 1000, UTC)
        assert ws.trace(ws.prices.span[1]).line > 1

        older = ws.prices.at(first.snapshot)
        assert older.rows == len(older.to_pandas()) == first.rows < second.rows
        assert first.snapshot in repr(older) and first.snapshot in older._repr_html_()

        points = ws.indicators.to_pandas()
        assert set(np.diff(points["timestamp"])) == {HOUR}
        found = ws.indicators.to_spark(spark_session).orderBy("timestamp").toPandas()
        pd.testing.assert_frame_equal(found, points, check_dtype=False)
        assert ws.prices.to_spark().sparkSession.sparkContext is spark_session.sparkContext
        with ws.indicators.batch_reader() as reader:
            batches = list(reader)
        read = np.concatenate([batch.ma_24 for batch in batches])
        np.testing.assert_array_equal(read, points["ma_24"])
        assert [m for batch in batches for m in batch.month] == points["month"].tolist()

        run = ws.train(epochs=2)
        assert run.record["settings"]["epochs"] == 2
        assert ws.settings["training.epochs"] == 30
        assert (run.state, len(run.history), run.metrics["epochs"]) == ("finished", 2, 2)
        assert run.history["val_loss"].min() == pytest.approx(run.metrics["best_validation_loss"])
        assert run.model().count_params() > 0
        assert [found.name for found in ws.runs] == [run.name] == [ws.runs[run.name].name]
        assert run.name in ws.runs._repr_html_() and run.name in repr(ws.runs[0])
        with pytest.raises(bitstorm.BitstormError, match="there is no run nightly"):
            ws.runs["nightly"]

        forecast = ws.forecast()
        assert forecast.verdict in repr(forecast)
        assert len(forecast.table) == forecast.metrics["test"]["windows"]
        for figure in (forecast.plot(), forecast.plot_test(theme="dark"), run.plot()):
            picture: Any = figure  # its Jupyter form is not in its type
            assert picture._repr_png_().startswith(b"\x89PNG")
        assert "dashboard.html" in ws.report().files
        assert (ws.path / "reports" / "dashboard.html").is_file()
        with pytest.raises(bitstorm.NothingToDo, match=run.name):
            ws.train(resume=run.name)
        stats = ws.stats(period=timedelta(hours=4), bars=2)
        assert (stats.period, len(stats.bars), stats.matching) == ("4h", 2, True)
        assert ws.forecasts.rows == ws.score().all_runs.waiting == 24
        assert "what came" not in str(ws.score().plot().axes[0].get_legend_handles_labels()[1])
        assert ws.forecasts.to_spark().count() == 24
        assert set(ws.verify()) == {"prices", "indicators", "forecasts"}
        assert ws.rollback(first.snapshot, reason="to see it").rows == ws.prices.rows == first.rows
        assert len(ws.history()) == 5
        assert ws.status().prices is not None
    assert spark_session.range(3).count() == 3
    assert spark_session.conf.get("spark.sql.session.timeZone") == zone


def test_a_file_takes_the_options_of_the_command(tmp_path: Path) -> None:
    file = tmp_path / "mine.csv"
    file.write_text("day;clock;close\n01/05/2024;13:45;57.000,5\n")
    ws = bitstorm.open_workspace(tmp_path / "w", settings={"source.mode": "csv"})
    columns: Any = {"timestamp_column": "day+clock", "price_column": "close"}
    with pytest.raises(bitstorm.UsageError, match="--date-format"):
        ws.preview_file(file, **columns)
    shown = ws.preview_file(file, date_format="%d/%m/%Y %H:%M", **columns)
    assert shown.rows == (("2024-05-01T13:45:00Z", "57000.5"),)


@pytest.mark.slow
def test_run_takes_a_file_of_the_users_own(tmp_path: Path, spark_session: Any) -> None:
    file = tmp_path / "mine.csv"
    times = prepared.FIRST_MS + prepared.hours() * HOUR
    lines = [f"{time},{price}" for time, price in zip(times, prepared.prices(), strict=True)]
    file.write_text("\n".join(["Unix,Close", *lines]) + "\n")
    ws = bitstorm.open_workspace(
        tmp_path / "w",
        # The one that loads sooner, where it is there; the way above has Keras.
        settings={
            **SMALL,
            "training.epochs": 1,
            "training.backend": "torch" if find_spec("torch") else "tensorflow",
        },
        quiet=True,
    )
    assert ws.preview_file(file, format="auto").columns == ("timestamp", "price")
    outcome = ws.run(csv=file, format="auto")
    assert outcome.ingested.rows == len(lines)
    assert ws.source == "csv (imported file)"
    assert ws.settings["source.mode"] == "simulated"  # the file counts for that run alone
    for text in (f"{len(lines):,} stored", outcome.forecast.verdict, "dashboard.html"):
        assert text in repr(outcome)


def pq_rows(file: Path) -> range:
    return range(pq.read_metadata(file).num_rows)
