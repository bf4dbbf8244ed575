"""Wall time of 24 sleeping trials with 1, 2 and 4 workers, and memory over 1,000 trials.

``python -m tests.workflow.measure_ray`` prints both; nothing is judged, because a busy machine is
slower. Each trial has two steps of a second; none is shared, so that linear is the best there is.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from lesiontk.store import Store
from lesiontk.workflow.executor import Executor, WorkerOptions, open_executor
from lesiontk.workflow.runner import run_plan
from tests.workflow.ray_here import running_ray
from tests.workflow.stub_study import make_space, stub_plan, stub_search

TRIALS = 24


def measure_seconds(workers: int, folder: Path) -> float:
    """Return the wall time of the trials in seconds; the processes are warm."""
    store = Store(folder / str(workers), threads=1)
    space = make_space(vary={"train.seed": list(range(TRIALS))})
    search = stub_search(store, space, seconds=1.0)
    with open_executor(store, WorkerOptions("ray", parallel=workers)) as executor:
        executor.run([partial(warm, executor, store, number) for number in range(2 * workers)])
        start = time.perf_counter()
        search.run(executor)
        return time.perf_counter() - start


def warm(executor: Executor, store: Store, number: int) -> None:
    """Let a process import what the trials need."""
    run_plan(stub_plan(1000 + number, 1000 + number, 0.5, ""), store, executor)


def read_memory() -> float:
    """Return the memory of this process in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def measure_memory(folder: Path, counts: tuple[int, ...]) -> Iterator[tuple[int, float]]:
    """Yield the memory of this process in MB after each number of trials."""
    store, vary = Store(folder / "memory", threads=1), {"train.seed": {"low": 0, "high": 10**6}}
    with open_executor(store, WorkerOptions("ray", parallel=4)) as executor:
        for count in counts:
            space = make_space(vary=vary, sampler="random", trials=count)
            stub_search(store, space).run(executor)
            yield count, read_memory()


def main() -> None:
    with tempfile.TemporaryDirectory() as name, running_ray():
        folder = Path(name)
        if "memory" not in sys.argv:
            one = measure_seconds(1, folder)
            sys.stdout.write(f"1 worker: {one:.1f} s\n")
            for workers in (2, 4):
                took = measure_seconds(workers, folder)
                ratio = took * workers / one
                sys.stdout.write(f"{workers} workers: {took:.1f} s, {ratio:.2f} of linear\n")
                sys.stdout.flush()
        if "time" not in sys.argv:
            for count, size in measure_memory(folder, (50, 200, 400, 1000)):
                sys.stdout.write(f"{count} trials: {size:.1f} MB\n")
                sys.stdout.flush()


if __name__ == "__main__":
    main()
