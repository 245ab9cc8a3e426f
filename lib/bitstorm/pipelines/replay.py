"""`ingest --replay-rejects`: refused rows that now pass the rules → the `prices` data set."""

from __future__ import annotations

from dataclasses import replace

from bitstorm.context import Context
from bitstorm.ingest.deduplicate import SOURCE_COLUMNS, Provenance, ranked, with_rank
from bitstorm.ingest.publish_prices import Ingested, as_only_writer, publish_merged, with_outcome
from bitstorm.ingest.validate import (
    checked,
    count_by_rule,
    keep_the_rest,
    only_good,
    placed,
    refuse_to_go_on,
    rejected_lines,
    tally_taken,
    to_judged,
)
from bitstorm.store import rejects, snapshots


def replay(context: Context) -> Ingested:
    """Check all refused rows again, with the settings of now, and accept those that pass.

    A row keeps its batch and line. The ledger has a separate entry for the accepted rows of a
    batch, whose key follows from them, so a replay that is killed after its commit accepts no row
    twice. The others stay in `rejects/`, with the new reason.
    """
    return as_only_writer(context, lambda: _replay(context), doing="replaying")


def _replay(context: Context) -> Ingested:
    workspace = context.workspace
    parent = snapshots.current(workspace.prices)
    known = snapshots.read_ledger(parent)
    base = Ingested(known_batches=len(known)).at(parent)
    retracted = {sha for sha, tally in known.items() if tally.get("retracted")}
    files = rejects.kept_rows(workspace.rejects)
    if not files:
        return base
    with context.spark("replay") as spark:
        lines = rejected_lines(context, spark)
        lines = lines.where(~lines["batch"].isin(list(retracted)))
        sources = lines.select(*SOURCE_COLUMNS).distinct().collect()
        ranking = ranked(Provenance(*source) for source in sources)
        rows = checked(context, with_rank(lines, ranking))
        with placed(to_judged(rows)) as judged:
            counted = count_by_rule(judged, ranking)
        refuse_to_go_on(counted, context.settings.ingest.rules)
        total = replace(base, read=counted.total(), refused=counted.total(refused=True))
        taken = tally_taken(rows.where("rule is null"), ranking)
        new = {key: tally for key, tally in taken.items() if key not in known}
        if new:
            batches = {tally["batch"] for tally in new.values()}
            ranks = [rank for rank, source in enumerate(ranking) if source.batch in batches]
            fresh = rows.where("rule is null").where(rows["rank"].isin(ranks))
            with placed(to_judged(fresh)) as judged:
                snapshot, tallies = publish_merged(
                    context,
                    only_good(judged),
                    ranking=ranking,
                    operation="replay",
                    parent=parent,
                    known=known,
                    counted=count_by_rule(judged, ranking),
                    tallies=new,
                )
            total = with_outcome(replace(total, batches=len(new)), snapshot, tallies)
        if taken:
            keep_the_rest(context, rows, files, ranking)
    return total
