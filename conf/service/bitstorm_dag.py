"""An example for Airflow 3: the hourly and the weekly work, as two DAGs of plain commands.

Put the file into Airflow's folder of DAGs and set the paths right. Every command may be stopped at
any moment and run again, so the retries are safe. Exit code 3 (nothing to do) shows as skipped; the
next task runs all the same. The key comes from a variable of the worker, COINGECKO_API_KEY, or from
Airflow's own connections; never write it here.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG, chain

PROGRAM = "/opt/bitstorm/.venv/bin/bitstorm"
OPTIONS = "--quiet --fail-if-idle --workspace /var/lib/bitstorm/live --set source.mode=coingecko"
WORK = {
    "bitstorm_hourly": ("7 * * * *", ("collect", "ingest", "indicators", "forecast", "report")),
    "bitstorm_weekly": ("37 3 * * 0", ("backfill", "verify", "train", "backtest")),
}

for dag_id, (schedule, steps) in WORK.items():
    with DAG(
        dag_id=dag_id,
        schedule=schedule,
        start_date=datetime(2026, 1, 1, tzinfo=UTC),
        catchup=False,
        max_active_runs=1,
        default_args={"retries": 2, "retry_delay": timedelta(minutes=5)},
    ):
        chain(
            *[
                BashOperator(
                    task_id=step,
                    bash_command=f"{PROGRAM} {step} {OPTIONS}",
                    skip_on_exit_code=3,
                    trigger_rule="none_failed",
                )
                for step in steps
            ]
        )
