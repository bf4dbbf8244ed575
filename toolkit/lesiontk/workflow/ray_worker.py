"""What a task of Ray does: it makes one step in a process of its own, maybe on another machine.

Artefacts do not travel through Ray: the task gets the names of the parents and returns a name.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lesiontk import __version__
from lesiontk.files.hashing import hash_document
from lesiontk.stage import EpochObserver, StageConfig, StepId, StoppedError
from lesiontk.stages import STAGES
from lesiontk.store import SharedStore, Store
from lesiontk.system.malloc_tuning import keep_freed_memory

WORKSPACES = Path.home() / ".cache" / "lesiontk"
"""Where a machine of a cluster that lacks the workspace has its own."""
THREADS = ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")


@dataclass(frozen=True, slots=True)
class StepCall:
    """One step: a stage, its config, and the names of its parents by role.

    `workspace` is on the machine `home`, and on all if that is empty; another machine uses a
    workspace of its own, and the artefacts in `shared`. `token` identifies this attempt. With
    `observed` the epochs of its training are reported. `job` and `level` are for its log lines.
    """

    workspace: Path
    home: str
    shared: SharedStore | None
    stage: str
    config: StageConfig
    parents: Mapping[str | StepId, str]
    recipe: Mapping[str, Any]
    restart: bool
    threads: int
    token: str
    observed: bool
    job: str
    level: int


def make_step(call: StepCall, relay: Any) -> str:
    """Return the name of the step's artefact, made now or reused. Errors as `Store.build`."""
    _prepare_process(call.threads)
    on_epoch = _report_to(relay, call.token) if call.observed else None
    folder = _find_workspace(call)
    store = Store(folder, threads=call.threads, on_epoch=on_epoch, shared=call.shared)
    with _Lines(relay, call):
        parents = {role: store.resolve(name) for role, name in call.parents.items()}
        made = store.build(
            STAGES.get(call.stage)(),
            call.config,
            parents,
            recipe=call.recipe,
            restart=call.restart,
        )
    return made.name


def _find_workspace(call: StepCall) -> Path:
    import ray

    if call.home in ("", ray.get_runtime_context().get_node_id()):
        return call.workspace
    assert call.shared is not None
    return WORKSPACES / hash_document(call.shared.url)[:12]


def probe_node(mark: Path) -> tuple[str, bool]:
    """Return the version of lesiontk on this machine, and whether it sees a file."""
    return __version__, mark.is_file()


class Relay:
    """An actor of Ray between the tasks and the process that runs the study.

    The tasks send log lines and epochs; the process takes them with `take`, and answers for each
    epoch whether the training shall stop.
    """

    def __init__(self) -> None:
        self._events: asyncio.Queue[tuple[Any, ...] | None] = asyncio.Queue()
        self._answers: dict[str, asyncio.Future[bool]] = {}

    async def log(self, level: int, text: str) -> None:
        """Send a line."""
        await self._events.put(("log", level, text))

    async def report(self, token: str, epoch: int, metrics: Mapping[str, float]) -> bool:
        """Send the metrics of an epoch, and return whether to stop when that is answered."""
        self._answers[token] = asyncio.get_running_loop().create_future()
        await self._events.put(("epoch", token, epoch, metrics))
        return await self._answers[token]

    async def answer(self, token: str, stop: bool) -> None:
        """Answer the last report of a training."""
        self._answers.pop(token).set_result(stop)

    async def take(self) -> list[tuple[Any, ...] | None]:
        """Return what was sent, waiting for the first; None is the end."""
        found = [await self._events.get()]
        while not self._events.empty():
            found.append(self._events.get_nowait())
        return found

    async def end(self) -> None:
        """Send the end."""
        await self._events.put(None)


@functools.cache
def _prepare_process(threads: int) -> None:
    keep_freed_memory()
    for name in THREADS:  # runtimes read them when they are first imported
        os.environ[name] = str(threads)


def _report_to(relay: Any, token: str) -> EpochObserver:
    import ray

    def on_epoch(epoch: int, metrics: Mapping[str, float]) -> None:
        if ray.get(relay.report.remote(token, epoch, dict(metrics))):
            raise StoppedError("stopped")

    return on_epoch


class _Lines(logging.Handler):
    """Sends the log lines of a step, behind the name of its job, while the body runs."""

    def __init__(self, relay: Any, call: StepCall) -> None:
        super().__init__()
        self._relay = relay
        self._before = f"{call.job}: " if call.job else ""
        self._level = call.level

    def __enter__(self) -> None:
        log = logging.getLogger("lesiontk")
        log.addHandler(self)
        log.setLevel(self._level)
        log.propagate = False

    def __exit__(self, *_: object) -> None:
        logging.getLogger("lesiontk").removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        self._relay.log.remote(record.levelno, f"{self._before}{record.getMessage()}")
