"""`verdict`: the grades of the last forecast, and how often such grades are wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bitstorm.context import Context
from bitstorm.core.errors import DataError
from bitstorm.core.results import Result
from bitstorm.evaluation import markets as simulated
from bitstorm.evaluation.markets import Proof
from bitstorm.report.summary import mark_of, read_metrics


@dataclass(frozen=True, repr=False)
class Verdict(Result):
    """`grades` as in metrics.json (`evaluation.verdict.Grades.to_json`). `error_rates` are those
    that `prove_verdict` measured with its defaults."""

    source: str
    run: str
    grades: dict[str, Any]
    error_rates: Proof

    def facts(self) -> dict[str, Any]:
        """The sentences: metrics.json has them in the order of the alphabet."""
        names = ("informative", "more accurate", "worth its costs", "data")
        return {
            "source": self.source,
            "run": self.run,
            "verdict": self.grades["headline"],
            **{name: self.grades["details"][name] for name in names},
        }


def verdict(context: Context) -> Verdict:
    """The grades in `reports/metrics.json`. Raises DataError where there are none."""
    path = context.workspace.reports / "metrics.json"
    metrics = read_metrics(path)
    if "grades" not in metrics:
        raise DataError(f"there are no grades in {path}: run `bitstorm forecast` again")
    mark = mark_of(metrics)
    source = mark.banner or mark.attribution or mark.origin
    return Verdict(source, metrics["run"], metrics["grades"], simulated.measured())


def prove_verdict(context: Context, *, markets: int, seed: int) -> Proof:
    """Measure the size and power of each grade on simulated markets, at the fee of the settings."""
    with context.console.bar() as draw:

        def show(done: int) -> None:
            if done % 10 == 0:
                draw(done / markets, f"{done:,} of {markets:,} markets", done % 100 == 0)

        fee = context.settings.forecast.fee
        return simulated.prove(markets, seed=seed, fee=fee, progress=show)
