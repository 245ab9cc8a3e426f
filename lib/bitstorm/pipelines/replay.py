"""`ingest --replay-rejects`: refused rows that now pass the rules → the `prices` data set."""

from __future__ import annotations

from dataclasses import replace

from bitstorm.context import Context
from bitstorm.ingest.deduplicate import SOURCE_COLUMNS, Provenance, to_ranking, with_rank
from bitstorm.ingest.publish_prices import Ingested, publish_merged, run_with_lock, with_outcome
from bitstorm.ingest.validate import (
    check_fatal_rules,
    count_by_rule,
    only_good,
    persist_with_place,
    rejected_lines,
    rewrite_refused,
    tallies_of_good,
    to_checked_prices,
    with_rules,
)
from bitstorm.store import rejects, snapshots


def replay(context: Context) -> Ingested:
    """Check all refused rows again, with the settings of now, and accept those that pass.

    A row keeps its batch and line. The ledger has a separate entry for the accepted rows of a
    batch, whose key follows from them, so a replay that is killed after its commit accepts no row
    twice. The others stay in `rejects/`, with the new reason.
    """
    return run_with_lock(context, lambda: _replay(context), doing="replaying")


def _replay(context: Context) -> Ingested:
    workspace = context.workspace
    parent = snapshots.current(workspace.prices)
    known = snapshots.read_ledger(parent)
    base = Ingested(known_batches=len(known)).at(parent)
    retracted = {sha for sha, tally in known.items() if tally.get("retracted")}
    files = rejects.row_files(workspace.rejects)
    if not files:
        return base
    with context.spark("replay") as spark:
        lines = rejected_lines(context, spark)
        lines = lines.where(~lines["batch"].isin(list(retracted)))
        sources = lines.select(*SOURCE_COLUMNS).distinct().collect()
        ranking = to_ranking(Provenance(*source) for source in sources)
        rows = with_rules(context, with_rank(lines, ranking))
        with persist_with_place(context, to_checked_prices(rows)) as checked:
            counts = count_by_rule(checked, ranking)
        check_fatal_rules(counts, context.settings.ingest.rules)
        read, refused = sum(counts.read.values()), sum(counts.refused.values())
        total = replace(base, read=read, refused=refused)
        taken = tallies_of_good(rows.where("rule is null"), ranking)
        new = {key: tally for key, tally in taken.items() if key not in known}
        if new:
            batches = {tally["batch"] for tally in new.values()}
            ranks = [rank for rank, source in enumerate(ranking) if source.batch in batches]
            fresh = rows.where("rule is null").where(rows["rank"].isin(ranks))
            with persist_with_place(context, to_checked_prices(fresh)) as checked:
                snapshot, tallies = publish_merged(
                    context,
                    only_good(checked),
                    ranking=ranking,
                    operation="replay",
                    parent=parent,
                    known=known,
                    counts=count_by_rule(checked, ranking),
                    tallies=new,
                )
            total = with_outcome(replace(total, batches=len(new)), snapshot, tallies)
        if taken:
            rewrite_refused(context, rows, files, ranking)
    return total
