"""Rules that the user sets, and refused rows taken back when the settings allow them."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from bitstorm.core.errors import DataError, SettingsError
from bitstorm.pipelines import history
from bitstorm.pipelines.ingest import ingest
from bitstorm.pipelines.replay import replay
from bitstorm.store import snapshots
from landed import HOUR, collected, context_of, drop

pytestmark = pytest.mark.slow

START = 1_609_459_200_000
LATE = START + 2 * HOUR


def stored(context):
    frame = pd.read_parquet(snapshots.required(context.workspace.prices).folder)
    return dict(zip(frame["timestamp"], frame["price"], strict=True))


def rejected(context):
    folder = context.workspace.rejects / "rows"
    return [
        json.loads(text)
        for path in sorted(folder.glob("*"))
        for text in path.open(encoding="utf-8")
    ]


def landed(context):
    text = f"price,timestamp\n1,{START}\n2,{LATE}\nbad,{START}\n3,{START + HOUR}\n"
    collected(context.workspace.landing, "a [1].csv", text, fetched_at=START + HOUR)


def test_rows_that_became_good_keep_their_batch_and_line(spark_session, tmp_path):
    context = context_of(tmp_path)
    landed(context)
    assert (ingest(context).refused, len(rejected(context))) == (2, 2)

    patient = context_of(tmp_path, "ingest.future_seconds=36000")
    result = replay(patient)
    assert (result.read, result.accepted, result.duplicate, result.refused) == (2, 1, 0, 1)
    assert stored(context) == {START: 1.0, START + HOUR: 3.0, LATE: 2.0}
    assert [(r["line"], r["rule"]) for r in rejected(context)] == [(4, "price_readable")]
    found = history.trace(patient, LATE)
    assert (found.name, found.line) == ("a [1].csv", 3)

    again = replay(patient)
    assert again.idle and again.snapshot == result.snapshot
    assert ingest(patient).idle
    # The digest is that of a workspace in which nothing had ever been refused.
    straight = context_of(tmp_path / "straight", "ingest.future_seconds=36000")
    landed(straight)
    ingest(straight)
    digests = {snapshots.required(c.workspace.prices).manifest.digest for c in (context, straight)}
    assert len(digests) == 1


def test_a_replay_killed_after_its_commit_takes_nothing_twice(spark_session, tmp_path):
    context = context_of(tmp_path)
    landed(context)
    ingest(context)
    (rows,) = (context.workspace.rejects / "rows").iterdir()
    before = rows.read_bytes()
    patient = context_of(tmp_path, "ingest.future_seconds=36000")
    first = replay(patient)
    rows.write_bytes(before)
    second = replay(patient)
    assert second.snapshot == first.snapshot
    assert len(rejected(context)) == 1


def test_a_rule_can_warn_and_then_the_row_is_taken(spark_session, tmp_path):
    context = context_of(
        tmp_path, "ingest.rules.not_in_future=warn", "ingest.rules.market_cap_readable=warn"
    )
    landed(context)
    text = f"timestamp,price,market_cap\n{START + 5 * HOUR},9,lots\n{START + 6 * HOUR},9,1e999\n"
    drop(context.workspace.landing, "b.csv", text)
    result = ingest(context)
    assert result.warned == {"not_in_future": 1, "market_cap_readable": 2}
    assert (result.accepted, result.refused) == (5, 1)
    frame = pd.read_parquet(snapshots.required(context.workspace.prices).folder)
    assert frame["market_cap"].isna().all()


def test_a_rule_can_fail_the_run_and_then_nothing_is_published(spark_session, tmp_path):
    context = context_of(tmp_path, "ingest.rules.price_readable=fail")
    landed(context)
    with pytest.raises(DataError, match="1 rows break price_readable"):
        ingest(context)
    assert snapshots.current(context.workspace.prices) is None


def test_a_spike_is_refused_and_the_rows_around_it_are_not(spark_session, tmp_path):
    context = context_of(tmp_path, "ingest.max_jump=3")
    prices = [100, 101, 102, 1020, 103, 104, 10, 105, 106, 250]
    text = "timestamp,price\n" + "".join(f"{START + n * HOUR},{p}\n" for n, p in enumerate(prices))
    drop(context.workspace.landing, "spikes.csv", text)
    assert ingest(context).refused == 2
    assert [(r["line"], r["rule"]) for r in rejected(context)] == [
        (5, "price_jump"),
        (8, "price_jump"),
    ]


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("ingest.rules.price_jmp=warn", "price_jump"),
        ("ingest.rules.price_positive=warn", "cannot be stored"),
        ("ingest.rules.price_positive=ignore", "refuse"),
    ],
)
def test_a_rule_or_action_that_cannot_be_is_told(override, said):
    with pytest.raises(SettingsError, match=said):
        context_of(Path("/"), override)
