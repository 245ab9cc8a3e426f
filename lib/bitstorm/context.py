"""The context of a command: its workspace, settings, console and Spark session."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from bitstorm.core.console import Console
from bitstorm.core.errors import StoreError
from bitstorm.core.settings import Settings
from bitstorm.core.sidecar import Origin
from bitstorm.core.third_party_noise import native_stderr_to
from bitstorm.core.workspace import Workspace
from bitstorm.spark.session import running_session, spark_session
from bitstorm.store import manifest
from bitstorm.store.stage_log import StageLog

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

# Up to this size Java's second compiler costs more than it saves.
SMALL_ROWS = 200_000
SMALL_BYTES = 16 << 20


@dataclass(frozen=True)
class Context:
    """Fixed for one command. `snapshot` is the ID that reading commands read. A session that a
    stage starts ends with the stage, or with `sessions` where these are given. `origins` say which
    layer each setting is from (see `config.Loaded`). `stages` logs the stages that end."""

    workspace: Workspace
    settings: Settings
    console: Console = field(default_factory=Console)
    snapshot: str | None = None
    sessions: ExitStack | None = field(default=None, kw_only=True)
    origins: Mapping[str, str] = field(default_factory=dict, kw_only=True)
    stages: StageLog = field(default_factory=StageLog, kw_only=True)

    def spark(self, name: str, *, tensorflow: bool = False) -> AbstractContextManager[SparkSession]:
        """The Spark session for a stage: the running one, or a new one. petastorm, and TensorFlow
        on request, are imported while the JVM starts."""
        if running_session() is not None:
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
            report=self.console.say,
        )

    def load_tensorflow(self) -> None:
        """Import TensorFlow; its start-up notes (missing GPU drivers) go to the log."""
        with native_stderr_to(self.jvm_log):
            _import_tensorflow()

    def _is_small(self) -> bool:
        """Whether the data takes seconds: a year of hours does, a year of minutes does not."""
        with suppress(OSError, StoreError):
            landing = self.workspace.landing
            batches = os.scandir(landing) if landing.exists() else ()
            waiting = sum(entry.stat().st_size for entry in batches)
            numbers = manifest.sequences(self.workspace.prices)[-1:]
            rows = sum(manifest.read(self.workspace.prices, n).rows for n in numbers)
            return waiting <= SMALL_BYTES and rows <= SMALL_ROWS
        return False

    @property
    def jvm_log(self) -> Path:
        return self.workspace.cache / "spark.log"

    def origin(self) -> Origin:
        """The origin of the prices that the settings collect."""
        source = self.settings.source
        seed = f":{self.settings.simulator.seed}" if source.mode == "simulated" else ""
        return Origin(f"{source.mode}{seed}", source.coin, source.vs_currency)


def _import_tensorflow() -> None:
    import keras  # noqa: F401
    import tensorflow as tf

    # TensorFlow looks for devices, and logs about them, at the first operation.
    tf.constant(0)
