"""Tracking of what a workspace makes. A tracker that fails does not end the work."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from threading import RLock
from weakref import finalize

from lesiontk.records import Artefact, ManifestHeader
from lesiontk.stage import BuildObserver, StoppedError
from lesiontk.tracking import TRACKERS, State, TrackedRun, Tracker, explain_failure
from lesiontk.workflow.tracked_runs import TRACKED, begin_run, end_run, name_epoch

logger = logging.getLogger(__name__)

ATTEMPTS = 3
"""Failures in a row after which a tracker is left alone: each may take a while."""


class Tracking(BuildObserver):
    """Records artefacts and searches with the tracker `name`.

    It connects before the first stage runs. Epochs that a tracker misses follow when their training
    ends; runs that it misses follow when the same command is run again.

    Raises `UsageError` for an unknown tracker, and `MissingRequirementError` without its package.
    """

    def __init__(self, name: str, workspace: Path) -> None:
        self.name, self._workspace = name, workspace
        TRACKERS.get(name).check()
        self._tracker: Tracker | None = None
        self._recorded: set[str] = set()
        self._missing: dict[str, str] = {}
        self._failures = 0
        self._lock = RLock()
        finalize(self, _report_missing, name, self._missing)  # when the work is over

    def __reduce__(self) -> tuple[type[Tracking], tuple[str, Path]]:
        """Another process connects for itself."""
        return Tracking, (self.name, self._workspace)

    @property
    def missing(self) -> tuple[str, ...]:
        """The names of the runs that were not recorded."""
        return tuple(self._missing.values())

    def connect(self) -> None:
        with self._lock:
            if self._tracker is None:
                self._tracker = TRACKERS.get(self.name)(self._workspace)

    def begin(self, header: ManifestHeader) -> None:
        if header.kind in TRACKED:
            self._write(begin_run(header))

    def epoch(self, header: ManifestHeader, epoch: int, metrics: Mapping[str, float]) -> None:
        if header.key not in self._missing:
            self._write(replace(begin_run(header), epochs={epoch: name_epoch(metrics)}))

    def end(self, artefact: Artefact) -> None:
        if artefact.kind in TRACKED and artefact.key not in self._recorded:
            self._write(end_run(artefact))

    def fail(self, header: ManifestHeader, error: BaseException) -> None:
        if header.kind not in TRACKED:
            return
        stopped = isinstance(error, KeyboardInterrupt | StoppedError)
        state = State.STOPPED if stopped else State.FAILED
        # Not the message: it may quote a path or the identifier of an image.
        tags = {"lesiontk.error": type(error).__name__}
        run = begin_run(header)
        self._write(replace(run, state=state, tags={**run.tags, **tags}))

    def record(self, run: TrackedRun) -> None:
        self.connect()
        self._write(run)

    def _write(self, run: TrackedRun) -> None:
        """Record a run, and keep in mind if that fails."""
        with self._lock:
            if self._failures >= ATTEMPTS or self._tracker is None:
                self._missing[run.key] = run.name
                return
            try:
                self._tracker.write(run)
            except Exception as error:  # noqa: BLE001 - any error is that of the tracker
                if not self._failures and not self._missing:
                    logger.warning(
                        "%s does not record %s (%s); the work goes on",
                        self.name, run.name, explain_failure(error),
                    )  # fmt: skip
                self._failures += 1
                self._missing[run.key] = run.name
            else:
                self._failures = 0
                self._missing.pop(run.key, None)
                if run.state is State.FINISHED:
                    self._recorded.add(run.key)


def _report_missing(name: str, missing: Mapping[str, str]) -> None:
    if missing:
        shown = ", ".join(list(missing.values())[:5])
        more = ", ..." if len(missing) > 5 else ""
        logger.warning(
            "%s has not recorded %d: %s%s. Run the same command again when it can be reached.",
            name, len(missing), shown, more,
        )  # fmt: skip
