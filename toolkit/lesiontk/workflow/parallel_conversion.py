"""Conversions in a background process.

The conversion of a large network mostly uses one core, in Python and in native code that threads
cannot share. Two back ends depend little on each other; common engines are made once, by the locks
of the workspace. The process runs `lesiontk.workflow.conversion_worker`.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

from lesiontk.backends import parse_target
from lesiontk.backends.reference_outputs import engine_file
from lesiontk.records import Artefact
from lesiontk.stage import StepId
from lesiontk.store import Store
from lesiontk.system.cores import count_cores
from lesiontk.workflow.steps import Plan

WORKER = "lesiontk.workflow.conversion_worker"
LARGE = 64 * 2**20
"""Size of a model's file in bytes below which a second process does not save time."""


def choose_background_targets(model: Artefact, targets: Sequence[str]) -> tuple[str, ...]:
    """Return the targets for the background process, if any.

    They are those of other back ends than the first target's, if the model is large.
    """
    if count_cores() < 2 or engine_file(model).stat().st_size < LARGE:
        return ()
    back_ends = [parse_target(target)[0] for target in targets]
    return tuple(t for t, name in zip(targets, back_ends, strict=True) if name != back_ends[0])


def shared_engines(
    plan: Plan, targets: Sequence[str], background: Sequence[str]
) -> tuple[str, ...]:
    """Return the steps of engines that targets of both processes are derived from, in order."""

    def needed(chosen: Sequence[str]) -> set[str]:
        found: set[str] = set()
        waiting = [StepId("engine", target) for target in chosen]
        while waiting:
            name = waiting.pop()
            found.add(name)
            waiting += [p for p in plan[name].parents.values() if p in plan and p not in found]
        return found

    here = [target for target in targets if target not in background]
    both = needed(here) & needed(background)
    return tuple(step.name for step in plan.steps if step.name in both and step.stage == "convert")


@contextmanager
def converting_in_background(
    store: Store, model: Artefact, targets: Sequence[str], overrides: Sequence[str]
) -> Iterator[Callable[[], None]]:
    """Convert the model to the targets in another process while the body runs.

    It starts when the body calls the yielded function; until then it loads its libraries. Its
    errors are not reported: a later build of the targets finds them, or raises the error.
    """
    call = {
        "workspace": str(store.workspace),
        "shared": store.shared and store.shared.url,
        "model": model.name,
        "targets": list(targets),
        "overrides": list(overrides),
    }
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", WORKER],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:

        def start() -> None:
            assert process.stdin is not None
            with suppress(BrokenPipeError), process.stdin as stream:  # it has failed to start
                json.dump(call, stream)

        try:
            yield start
            with store.progress.task(f"waiting for {', '.join(targets)}", None):
                process.wait()
        finally:
            process.terminate()
