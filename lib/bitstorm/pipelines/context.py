"""What every pipeline is given: where, with which settings, and to whom to speak."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from bitstorm.config import Settings
from bitstorm.console import Console
from bitstorm.quiet import native_stderr_to
from bitstorm.session import spark_session
from bitstorm.sidecar import Origin
from bitstorm.workspace import Workspace

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@dataclass(frozen=True)
class Context:
    """Frozen for one command. `snapshot` pins what reading commands read."""

    workspace: Workspace
    settings: Settings
    console: Console = field(default_factory=Console)
    snapshot: str | None = None

    def spark(self, name: str) -> AbstractContextManager[SparkSession]:
        """A session for a stage; a stage inside `run` gets the run's own."""
        return spark_session(
            app_name=f"bitstorm {name}", spark=self.settings.spark, log=self.jvm_log
        )

    def load_tensorflow(self) -> None:
        """Load it with its start-up notes (missing GPU drivers) in the log, not on the terminal."""
        with native_stderr_to(self.jvm_log):
            import keras  # noqa: F401
            import tensorflow as tf

            # Devices are looked for, and talked about, at the first operation.
            tf.constant(0)

    @property
    def jvm_log(self) -> Path:
        return self.workspace.cache / "spark.log"

    def origin(self) -> Origin:
        """What the settings say is collected."""
        source = self.settings.source
        label = (
            f"simulated:{self.settings.simulator.seed}"
            if source.mode == "simulated"
            else source.mode
        )
        return Origin(label, source.coin, source.vs_currency)
