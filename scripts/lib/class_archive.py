"""Makes the archive of Spark's classes that `bitstorm.spark.jvm` starts a local JVM with.

A JVM writes at its end which classes it had loaded, as it keeps them in memory. So a few hours of
the simulated market go through a JVM of their own, in a temporary workspace.
"""

import os
import sys
import tempfile
from pathlib import Path

from bitstorm.context import Context
from bitstorm.core import third_party_noise
from bitstorm.core.console import Console
from bitstorm.core.settings import Settings
from bitstorm.core.workspace import open_workspace
from bitstorm.pipelines.backfill import backfill
from bitstorm.pipelines.indicators import indicators
from bitstorm.pipelines.ingest import ingest
from bitstorm.spark import java, jvm


def main() -> None:
    third_party_noise.install_filters()
    third_party_noise.hush_loggers()
    home = java.find_java_home(os.environ, project=java.project_root())
    if home is None:
        return
    name = jvm.archive_name(home)
    draft = Path(sys.prefix, f"{name}-{os.getpid()}.tmp")
    options = (
        f'-XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Xlog:disable "-XX:ArchiveClassesAtExit={draft}"'
    )
    settings = Settings.model_validate(
        {"spark": {"conf": {"spark.driver.extraJavaOptions": options}}, "backfill": {"days": 3}}
    )
    try:
        with tempfile.TemporaryDirectory() as folder:
            context = Context(open_workspace(folder), settings, Console(quiet=True))
            backfill(context)
            with context.spark("class archive"):
                ingest(context)
                indicators(context)
        draft.rename(draft.with_name(f"{name}-{draft.stat().st_size}.jsa"))
    finally:
        draft.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
