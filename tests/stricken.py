"""Kills executors under a running task, and finds in Spark's event log that it was one."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DEADLINE_SECONDS = 120.0
_BEGUN = re.compile(r"Running task \S+ in stage (\d+)\.\d+ \(TID (\d+)\)")
_ENDED = re.compile(r"(?:Finished task|Exception in task) \S+ in stage \d+\.\d+ \(TID (\d+)\)")


@dataclass(frozen=True)
class Task:
    """The description of its job, and what Spark names the steps of its stage."""

    job: str
    steps: frozenset[str]


class Application:
    """One application of a cluster: `log` is its event log, and `work` the folder with a folder for
    each executor."""

    def __init__(self, log: Path, work: Path) -> None:
        self._log, self._work = log, work
        self._stages: dict[int, Task] = {}
        self._known = 0

    def _events(self, first: int) -> Iterator[tuple[int, dict[str, Any]]]:
        """Size and content of the event log's whole lines from this byte on."""
        unfinished = self._log.with_name(f"{self._log.name}.inprogress")
        with (unfinished if unfinished.exists() else self._log).open("rb") as stream:
            stream.seek(first)
            for line in stream:
                if line.endswith(b"\n"):
                    yield len(line), json.loads(line)

    def stages(self) -> dict[int, Task]:
        """Job and steps of each stage, by number, from the beginning of its job on."""
        for size, event in self._events(self._known):
            self._known += size
            # Spark writes this one at once.
            if event["Event"] == "SparkListenerJobStart":
                job = event["Properties"].get("spark.job.description", "")
                for stage in event["Stage Infos"]:
                    self._stages[stage["Stage ID"]] = Task(job, _steps(stage))
        return self._stages

    def lost_tasks(self) -> list[Task]:
        """The tasks that Spark has seen begin and then lost with their executor, oldest first."""
        stages, begun, found = self.stages(), set(), []
        for _, event in self._events(0):
            if event["Event"] == "SparkListenerTaskStart":
                begun.add(event["Task Info"]["Task ID"])
            elif event["Event"] == "SparkListenerTaskEnd":
                lost = event["Task End Reason"]["Reason"] == "ExecutorLostFailure"
                if lost and event["Task Info"]["Task ID"] in begun:
                    found.append(stages[event["Stage ID"]])
        return found

    def executors(self) -> dict[str, int]:
        """The processes of its executors by number."""
        return dict(_executors(self._work.name))

    def _running(self, job: str, steps: Collection[str]) -> list[int]:
        """The executors' processes that run a task of such a stage, by their own logs."""
        wanted = {n for n, s in self.stages().items() if s.job == job and s.steps >= set(steps)}
        found = []
        for number, process in self.executors().items():
            log = self._work / number / "stderr"
            text = log.read_text(errors="replace") if log.exists() else ""
            ended = set(_ENDED.findall(text))
            if any(int(n) in wanted and task not in ended for n, task in _BEGUN.findall(text)):
                found.append(process)
        return found

    def stop(self, job: str, *steps: str) -> int:
        """Stop an executor under a running task of the job's stage with these RDDs.

        Return its process, which can't end the task any more: kill it."""
        until = time.monotonic() + DEADLINE_SECONDS
        while time.monotonic() < until:
            for process in self._running(job, steps):
                os.kill(process, signal.SIGSTOP)
                if process in self._running(job, steps):
                    return process
                os.kill(process, signal.SIGCONT)
            time.sleep(0.005)
        raise AssertionError(f"no task of {job} with {steps} was seen to run: {self.stages()}")


def _steps(stage: dict[str, Any]) -> frozenset[str]:
    scopes = (json.loads(rdd.get("Scope", "{}")).get("name", "") for rdd in stage["RDD Info"])
    return frozenset(scope.split(" (")[0] for scope in scopes)


def _executors(application: str) -> Iterator[tuple[str, int]]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            except OSError:
                continue
            if application in words and "--executor-id" in words:
                yield words[words.index("--executor-id") + 1], int(entry.name)
