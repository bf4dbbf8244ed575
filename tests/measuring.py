"""Measuring engines in this process: others would load their libraries for a minute of a test run.

That engines are measured in processes of their own is tested in `tests.bench` and by the whole
chain of `tests.end_to_end`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lesiontk.backends.foreign import ForeignDescription
from lesiontk.bench import latency, measure, memory


def run_module(module: str, *arguments: str) -> str:
    """Do what the measuring process `module` does; return what it prints."""
    if module == latency.__name__:
        latency.main(*map(Path, arguments))
        return ""
    path, *described = arguments
    foreign = [ForeignDescription.from_document(json.loads(text)) for text in described]
    return str(memory.measure_peak_memory(path, *foreign))


@contextmanager
def measuring_here() -> Iterator[None]:
    """Latency and memory are measured in this process while the body runs."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
            patch.setenv(name, "1")  # which measuring sets
        patch.setattr(measure, "_run_module", run_module)
        yield
