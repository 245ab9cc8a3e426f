"""What every pipeline is given: where, with which settings, and to whom to speak."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from bitstorm.core.config import Settings
from bitstorm.core.console import Console
from bitstorm.core.errors import SnapshotDamaged
from bitstorm.core.sidecar import Origin
from bitstorm.core.third_party_noise import native_stderr_to
from bitstorm.core.workspace import Workspace
from bitstorm.spark.session import is_running, spark_session
from bitstorm.store import manifest

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

# Up to here Java's second compiler costs more than it saves.
SMALL_ROWS = 200_000
SMALL_BYTES = 16 << 20


@dataclass(frozen=True)
class Context:
    """Frozen for one command. `snapshot` pins what reading commands read. A session that a stage
    starts ends with it, or with `sessions` where these are given."""

    workspace: Workspace
    settings: Settings
    console: Console = field(default_factory=Console)
    snapshot: str | None = None
    sessions: ExitStack | None = field(default=None, kw_only=True)

    def spark(self, name: str, *, tensorflow: bool = False) -> AbstractContextManager[SparkSession]:
        """A session for a stage: the one that runs already, or a new one. What the stage imports,
        TensorFlow included where it is named, is loaded while the JVM starts."""
        if is_running():
            if tensorflow:
                self.load_tensorflow()
        elif self.sessions is not None:
            self.sessions.enter_context(self._session(name, tensorflow=tensorflow))
        return self._session(name, tensorflow=tensorflow)

    def _session(self, name: str, *, tensorflow: bool) -> AbstractContextManager[SparkSession]:
        def load() -> None:
            import_module("bitstorm.store.petastorm_io")
            if tensorflow:
                _import_tensorflow()

        return spark_session(
            app_name=f"bitstorm {name}",
            spark=self.settings.spark,
            log=self.jvm_log,
            small=self._is_small(),
            meanwhile=load,
        )

    def load_tensorflow(self) -> None:
        """Load it with its start-up notes (missing GPU drivers) in the log, not on the terminal."""
        with native_stderr_to(self.jvm_log):
            _import_tensorflow()

    def _is_small(self) -> bool:
        """Whether what lies in the workspace is soon done: a year of hours is, of minutes not."""
        with suppress(OSError, SnapshotDamaged):
            waiting = sum(entry.stat().st_size for entry in os.scandir(self.workspace.landing))
            numbers = manifest.sequences(self.workspace.prices)[-1:]
            rows = sum(manifest.read(self.workspace.prices, n).rows for n in numbers)
            return waiting <= SMALL_BYTES and rows <= SMALL_ROWS
        return False

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


def _import_tensorflow() -> None:
    import keras  # noqa: F401
    import tensorflow as tf

    # Devices are looked for, and talked about, at the first operation.
    tf.constant(0)
