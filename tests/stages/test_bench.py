"""The work of an engine on the CPU is lent to Keras on the CPU alone."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import cast

import pytest

from lesiontk.backends.execution import Execution
from lesiontk.bench.measure import Measurement
from lesiontk.bench.roofline import Work
from lesiontk.records import Artefact
from lesiontk.stage import EngineName
from lesiontk.stages.bench import _share_work
from tests.bench.measurements import make_attempt, make_measurement

KERAS, ONNX = EngineName("keras:float32"), EngineName("onnx:float32")
WORK = Work(macs=50, bytes_moved=10)


def make_measured(work: Work | None, *execution: Execution) -> Measurement:
    measured = make_measurement(make_attempt([1.0] * 5))
    timing = replace(measured.single_stream, execution=execution)
    return replace(measured, timings=(timing,), work=work)


@pytest.mark.parametrize(
    ("execution", "lent"), [((), WORK), ((Execution("device", "GPU", "GPU"),), None)]
)
def test_keras_has_the_work_of_another_engine_if_both_are_on_the_cpu(
    execution: tuple[Execution, ...], lent: Work | None
) -> None:
    facts = SimpleNamespace(read_facts=lambda _: SimpleNamespace(precision="float32"))
    engines = dict.fromkeys((KERAS, ONNX), cast(Artefact, facts))
    measured: dict[str, Measurement] = {
        KERAS: make_measured(None, *execution),
        ONNX: make_measured(WORK),
    }
    assert _share_work(measured, engines)[KERAS].work == lent
