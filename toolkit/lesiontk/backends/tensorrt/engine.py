"""Engines of the back end: in TensorRT on a GPU, emulated elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lesiontk.backends.backend import Engine
from lesiontk.backends.execution import Execution
from lesiontk.backends.onnx.backend import ONNXEngine
from lesiontk.backends.operator_profile import OperatorProfile, OperatorTimes
from lesiontk.backends.tensorrt import cuda_bindings, on_device
from lesiontk.backends.tensorrt.build import build_engine
from lesiontk.backends.tensorrt.installation import import_tensorrt
from lesiontk.backends.tensorrt.plan_runner import Runner
from lesiontk.errors import MissingRequirementError
from lesiontk.records import EngineSpec

WARMUP = 5
EMULATOR = "ONNX Runtime on the CPU"


class EmulatedEngine(ONNXEngine):
    """An engine that emulates the graph in ONNX Runtime: TensorRT's accuracy, not its speed.

    Integer kernels of the CPU are disabled, so that values are rounded where the graph specifies
    and multiplied in float32 on any CPU.
    """

    def __init__(self, path: Path, threads: int, reason: str) -> None:
        super().__init__(path, threads, entries={"session.disable_quant_qdq": "1"})
        self._reason = reason

    def describe_execution(self) -> tuple[Execution, ...]:
        return (explain_emulation(self._reason),)


class GPUEngine(Engine):
    """An engine in TensorRT, built for this GPU when the file is opened."""

    batches = True

    def __init__(self, path: Path, spec: EngineSpec) -> None:
        super().__init__(spec)
        trt = import_tensorrt()
        plan = build_engine(path, spec.precision)
        try:
            self._runner: Any = Runner(trt, cuda_bindings.open_cuda(), plan.content)
        except (on_device.MissingRequirementError, on_device.BuildError) as error:
            raise MissingRequirementError(f"{path.name}: {error}") from error
        self._name = on_device.version_of(trt)

    def _infer(self, images: NDArray[np.uint8]) -> NDArray[Any]:
        return np.asarray(self._runner.predict(images))

    def _infer_outputs(self, images: NDArray[np.uint8]) -> list[NDArray[Any]]:
        return list(self._runner.predict_outputs(images))

    def time_images(self, images: NDArray[np.uint8], rounds: int, warmup: int) -> tuple[float, ...]:
        """Return the milliseconds of each round on the GPU, one image each, by CUDA events."""
        return tuple(self._runner.time_images(images, rounds, warmup))

    def profile(self, rounds: int) -> OperatorProfile:
        """Return the times of each layer that TensorRT built, and of the whole without profiler."""
        shape = (1, *self.spec.input_shape)
        image = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
        whole = self.time_images(image, rounds, WARMUP)
        layers = self._runner.time_layers(image, rounds, WARMUP)
        return OperatorProfile(
            "TensorRT's own profiler of each layer (IProfiler), in runs apart from the whole",
            tuple(OperatorTimes(name, "", tuple(found)) for name, found in layers.items()),
            whole,
        )

    def describe_execution(self) -> tuple[Execution, ...]:
        return (Execution("runtime", "TensorRT", "TensorRT", self._name),)

    def close(self) -> None:
        self._runner.close()


def explain_emulation(reason: str) -> Execution:
    """Return the execution record of emulation by ONNX Runtime, with the reason."""
    return Execution(
        "runtime",
        "TensorRT",
        EMULATOR,
        f"{reason}; outputs are emulated, latency is not TensorRT's",
    )
