"""Where the steps of plans run: in this process, or as tasks of Ray."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

from lesiontk.errors import UsageError, show_value, suggest
from lesiontk.records import Artefact
from lesiontk.stage import Needs
from lesiontk.stages import STAGES
from lesiontk.store import Store
from lesiontk.workflow.steps import Step

LOCAL, RAY = "local", "ray"
WORKERS = (LOCAL, RAY)
DEVICE_LOCK = "timing"
"""Engines are timed one at a time on this machine, whichever runtime they have."""


@dataclass(frozen=True, slots=True)
class StepBuild:
    """A step with the artefacts of its parents; the rest is as for `Store.build`."""

    store: Store
    step: Step
    parents: Mapping[str, Artefact]
    recipe: Mapping[str, Any]
    restart: bool = False

    @property
    def needs(self) -> Needs:
        """What its stage needs."""
        return STAGES.get(self.step.stage).info.needs

    @property
    def parent_names(self) -> dict[str, str]:
        """Role -> the name of the parent's artefact."""
        return {role: parent.name for role, parent in self.parents.items()}

    def make(self) -> Artefact:
        """Return the artefact, made now in this process or reused."""
        return self.store.build(
            STAGES.get(self.step.stage)(),
            self.step.config,
            self.parents,
            recipe=self.recipe,
            restart=self.restart,
        )


class Executor(ABC):
    """Builds steps; each is made once, also when several threads need it at the same time."""

    def __init__(self) -> None:
        self._job = threading.local()

    def build(self, wanted: StepBuild) -> Artefact:
        """Return the artefact of a step, as `Store.build`. Steps that measure run one at a time."""
        if not wanted.needs.alone:
            return self._build(wanted)
        with self._measuring(), wanted.store.hold(DEVICE_LOCK):
            return self._build(wanted)

    def run(self, jobs: Iterable[Callable[[], None]]) -> None:
        """Call every job, several at once where this executor can. Errors as `repeat`."""
        waiting = deque(jobs)

        def run_next() -> bool:
            try:
                job = waiting.popleft()
            except IndexError:
                return False
            job()
            return True

        self.repeat(run_next)

    @contextmanager
    def job(self, name: str) -> Iterator[None]:
        """Name what this thread builds in the body, for the log lines of other processes."""
        self._job.name = name
        try:
            yield
        finally:
            self._job.name = ""

    @property
    def job_name(self) -> str:
        """The name of this thread's job; empty outside of one."""
        return getattr(self._job, "name", "")

    @abstractmethod
    def repeat(self, job: Callable[[], bool]) -> None:
        """Call the job until it returns False.

        The first error is raised; none is started after it.
        """

    @abstractmethod
    def _build(self, wanted: StepBuild) -> Artefact: ...

    def _measuring(self) -> AbstractContextManager[None]:
        """Return a context in which this thread wants to measure the machine, or does."""
        return nullcontext()


class LocalExecutor(Executor):
    """Builds one step at a time, in this process."""

    def repeat(self, job: Callable[[], bool]) -> None:
        """Call the job until it returns False."""
        while job():
            pass

    def _build(self, wanted: StepBuild) -> Artefact:
        return wanted.make()


HERE = LocalExecutor()


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """Who runs the steps: this process (`local`) or Ray.

    `address` is that of a cluster, ``HOST:PORT`` or ``auto``; without it Ray runs on this machine
    alone. `parallel` is the number of trials, folds or recipes at once.
    """

    workers: str = LOCAL
    address: str | None = None
    parallel: int | None = None

    def __post_init__(self) -> None:
        if self.workers not in WORKERS:
            raise UsageError(
                f"workers is {show_value(self.workers)}; expected {' or '.join(WORKERS)}."
                + suggest(str(self.workers), WORKERS)
            )
        if self.workers == RAY:
            if self.parallel is not None and self.parallel < 1:
                raise UsageError(f"parallel is {self.parallel}; expected 1 or more.")
            return
        for name, value in (("--ray-address", self.address), ("--parallel", self.parallel)):
            if value is not None:
                raise UsageError(
                    f"{name} {value} is for workers of Ray; expected --workers ray with it."
                )


THIS_PROCESS = WorkerOptions()


@contextmanager
def open_executor(store: Store, options: WorkerOptions) -> Iterator[Executor]:
    """Yield the executor of these options; workers that it started end with the body.

    Raises `MissingRequirementError` without Ray, a cluster at the address, the shared store or the
    tracker, and `UsageError` for machines of a cluster that cannot use the workspace.
    """
    if options.workers == LOCAL:
        yield HERE
        return
    from lesiontk.workflow.ray_cluster import connect
    from lesiontk.workflow.ray_executor import RayExecutor

    store.observer.connect()  # the workers make the steps, and this process records them
    if store.shared is not None:
        store.shared.check()  # before Ray starts, which takes a while
    with connect(store, options.address) as cluster:
        executor = RayExecutor(cluster, options.parallel)
        try:
            yield executor
        finally:
            executor.close()
