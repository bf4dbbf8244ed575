"""What a runtime was asked for and what ran are told apart, on real sessions."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from lesiontk.backends import open_engine
from lesiontk.backends.execution import NOTHING, Execution, runs_on_cpu
from lesiontk.backends.onnx import provider as onnx_provider
from lesiontk.backends.onnx.provider import CPU, describe_provider, try_providers
from lesiontk.backends.tflite.delegate import XNNPACK, describe_xnnpack, try_xnnpack
from lesiontk.bench.benchmark import EngineRow, list_fallbacks
from lesiontk.system.frameworks import import_tensorflow
from tests.conformance.fitted_models import FittedParent

CUDA = "CUDAExecutionProvider"


class FakeInterpreter:
    """An interpreter whose graph holds these operators."""

    def __init__(self, *operators: str) -> None:
        self._operators = operators

    def _get_ops_details(self) -> list[dict[str, str]]:
        return [{"op_name": name} for name in self._operators]


class FakeSession:
    """A session that runs with these providers."""

    def __init__(self, *providers: str) -> None:
        self._providers = providers

    def get_providers(self) -> list[str]:
        return list(self._providers)


def test_a_graph_that_a_delegate_took_over_says_so() -> None:
    whole = describe_xnnpack(FakeInterpreter("CONV_2D", "SOFTMAX", "DELEGATE"))
    assert (whole.used, whole.fell_back, whole.detail) == (XNNPACK, False, "")
    parted = describe_xnnpack(FakeInterpreter("CONV_2D", "ODDITY", "DELEGATE", "DELEGATE"))
    assert "in 2 parts" in parted.detail


def test_a_graph_without_a_delegate_fell_back() -> None:
    """The twin of the test above."""
    received = describe_xnnpack(FakeInterpreter("CONV_2D", "SOFTMAX"))
    assert (received.used, received.fell_back) == (NOTHING, True)


def test_the_tiny_graph_of_the_doctor_runs_with_xnnpack() -> None:
    assert try_xnnpack() == Execution("delegate", XNNPACK, XNNPACK)


def test_the_providers_of_this_machine_are_tried() -> None:
    found = try_providers()
    assert Execution("provider", CPU, CPU) in found


def test_a_provider_that_is_listed_and_does_not_load_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(onnx_provider, "is_listed", lambda name: True)
    received = describe_provider(FakeSession(CPU), CUDA)
    assert (received.asked, received.used, received.fell_back) == (CUDA, CPU, True)
    assert "could not load it" in received.detail
    assert not describe_provider(FakeSession(CUDA, CPU), CUDA).fell_back


def test_engines_say_what_runs_them(tiny_parent: Callable[[str], FittedParent]) -> None:
    with open_engine(tiny_parent("cnn").convert("tflite:float32")) as engine:
        (execution,) = engine.describe_execution()
    assert (execution.asked, execution.used) == (XNNPACK, XNNPACK)
    with open_engine(tiny_parent("cnn").convert("onnx:float32")) as engine:
        (execution,) = engine.describe_execution()
    assert (execution.asked, execution.used) == (CPU, CPU)


def test_a_model_in_keras_says_that_it_runs_on_a_gpu(
    tiny_parent: Callable[[str], FittedParent], monkeypatch: pytest.MonkeyPatch
) -> None:
    tf = import_tensorflow()
    with open_engine(tiny_parent("cnn").convert("keras:float32")) as engine:
        for gpus, on_cpu in (([], True), (["/device:GPU:0"], False)):
            monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind, found=gpus: found)
            assert runs_on_cpu(engine.describe_execution()) == on_cpu


def test_a_provider_that_this_onnxruntime_lacks_falls_back_and_says_so(
    tiny_parent: Callable[[str], FittedParent],
) -> None:
    with open_engine(tiny_parent("cnn").convert("onnx:float32"), provider="NoSuchProvider") as e:
        (execution,) = e.describe_execution()
    assert (execution.asked, execution.used) == ("NoSuchProvider", CPU)
    assert "not in this build" in execution.detail


def row(*execution: Execution) -> EngineRow:
    return EngineRow(
        engine="engine-1", target="onnx:int8", backend="onnx", precision="int8", threads=1,
        size_bytes=1, execution=execution,
    )  # fmt: skip


def test_only_what_fell_back_is_listed() -> None:
    fell = Execution("provider", CUDA, CPU, "not in this build of onnxruntime")
    ran = Execution("delegate", XNNPACK, XNNPACK)
    none = Execution("delegate", XNNPACK, NOTHING)
    assert row(ran).describe_fallbacks() == row().describe_fallbacks() == []
    assert row(ran, fell, none).describe_fallbacks() == [
        f"provider {CUDA} was requested, {CPU} ran (not in this build of onnxruntime)",
        f"delegate {XNNPACK} was requested, none was applied",
    ]
    assert list(list_fallbacks([row(ran), row(fell)])) == ["onnx:int8"]
