"""Measuring engines in this process: others would load their libraries for a minute of a test run.

That engines are measured in processes of their own is tested in `tests.bench` and by the whole
chain of `tests.end_to_end`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from lesiontk.backends.foreign import ForeignDescription
from lesiontk.bench import layer_profile, load, measure, peak, timing, worker
from lesiontk.bench.worker import Ready, RoundSamples, TimingRequest, Worker
from lesiontk.document import Record


def run_module(module: str, first: str, *others: str) -> str:
    """Do what a measuring process does; return what it prints. The peak is made up."""
    found: Record
    if module == load.__name__:
        provider, *described = others
        foreign = [ForeignDescription.from_document(json.loads(text)) for text in described]
        found = load.measure_load(first, provider or None, *foreign)
    elif module == layer_profile.__name__:
        found = layer_profile.profile_engine(Path(first), *map(int, others))
    else:
        assert module == peak.__name__
        threads = int(first)
        found = peak.Peak(
            threads=threads, float32_gops=100.0 * threads, int8_gops=400.0 * threads,
            bandwidth_gbs=10.0,
        )  # fmt: skip
    return json.dumps(found.to_document())


class WorkerHere:
    """A worker in this process."""

    def __init__(self, here: Worker) -> None:
        self._worker = here

    def wait_ready(self) -> Ready:
        return self._worker.ready

    def run_round(self) -> RoundSamples:
        return self._worker.run_round()

    def run_path(self) -> RoundSamples:
        return self._worker.run_path()


@contextmanager
def start_worker(request: TimingRequest, _: Path) -> Iterator[WorkerHere]:
    """Yield a worker in this process, which times the path of one picture in a round."""
    with Worker(replace(request, pictures=request.pictures[:1])) as here:
        yield WorkerHere(here)


@contextmanager
def measuring_here() -> Iterator[None]:
    """Latency and memory are measured in this process, briefly, while the body runs."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
            patch.setenv(name, "1")  # which measuring sets
        patch.setattr(worker, "ROUND_S", 0.01)
        patch.setattr(worker, "WARMUP_S", 0.05)
        patch.setattr(measure, "OFFLINE_IMAGES", 4)
        patch.setattr(load, "REOPENED", 1)
        patch.setattr(timing, "SPREAD_LIMIT", float("inf"))  # nothing is measured again
        patch.setattr(timing, "OTHERS_LIMIT", 1.0)
        patch.setattr(measure, "_run_module", run_module)
        patch.setattr(measure, "start_worker", start_worker)
        yield
