"""Run a serialized TensorRT engine on the GPU."""

from __future__ import annotations

from typing import Any, TypedDict

import numpy as np

from lesiontk.backends.tensorrt.dla_layers import DlaLayers
from lesiontk.backends.tensorrt.on_device import (
    BuildError,
    MissingRequirementError,
    describe_errors,
    make_logger,
)

SIGNALS = ("features", "logits")
"""The outputs after the probabilities, of an engine with input checks."""


class PlanDescription(TypedDict, total=False):
    """What runs, as the documents of a bundle's runner have it; set by who made the plan."""

    runtime: str
    version: str
    precision: str
    device: str
    engine: str
    plan_bytes: int
    warning: str
    dla: DlaLayers | None


class Runner:
    """A serialized engine on the GPU: uint8 [N, S, S, 3] in, float32 [N, C] out.

    An engine with input checks also returns features [N, D] and logits [N, C].
    """

    def __init__(self, trt: Any, cuda: Any, plan: bytes) -> None:
        self.description: PlanDescription = {}
        self._trt, self._cuda = trt, cuda
        self._logger = make_logger(trt)
        try:
            self._runtime = trt.Runtime(self._logger)
        except TypeError as error:  # the binding raises it without a driver
            what = "TensorRT's runtime requires an NVIDIA driver and GPU"
            raise MissingRequirementError(describe_errors(what, self._logger)) from error
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            raise BuildError(
                "the engine cannot be loaded: {}. An engine runs only with the TensorRT version "
                "and the GPU "
                "that built it; build it again.".format("; ".join(self._logger.errors))
            )
        names = [self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)]
        inputs = [n for n in names if self._engine.get_tensor_mode(n) == trt.TensorIOMode.INPUT]
        outputs = [n for n in names if n not in inputs]
        signals = [name for name in SIGNALS if name in outputs]
        results = [name for name in outputs if name not in signals]
        if len(inputs) != 1 or len(results) != 1 or len(signals) == 1:
            raise BuildError(
                f"the engine has the inputs {inputs} and outputs {outputs}; expected one input, "
                f"the probabilities, and all or none of {', '.join(SIGNALS)}."
            )
        self._input = inputs[0]
        max_shape = self._engine.get_tensor_profile_shape(self._input, 0)[2]
        self.images_at_once = int(max_shape[0])
        self._context = self._engine.create_execution_context()
        if self._context is None:
            raise MissingRequirementError(
                "too little GPU memory to run the engine: " + "; ".join(self._logger.errors)
            )
        self._images = cuda.pinned(tuple(max_shape), np.uint8)
        self._upload = self._place(self._input, self._images)
        self._outputs = []
        for name in (*results, *signals):
            width = int(np.prod(tuple(self._engine.get_tensor_shape(name))[1:]))
            array = cuda.pinned((self.images_at_once, width), np.float32)
            self._outputs.append((array, self._place(name, array)))
        self._last: list[Any] = []

    def _place(self, name: str, array: Any) -> int:
        """Return the address on the GPU of a tensor of an array's size."""
        address = int(self._cuda.allocate(array.nbytes))
        self._context.set_tensor_address(name, address)
        return address

    def predict(self, images: Any) -> Any:
        """Return probabilities float32 [N, C]."""
        return self.predict_outputs(images)[0]

    def predict_outputs(self, images: Any) -> list[Any]:
        """Return each output float32 [N, ...], in batches of the engine's maximum size."""
        parts = []
        for start in range(0, len(images), self.images_at_once):
            part = images[start : start + self.images_at_once]
            self._start(part)
            self._cuda.wait()
            parts.append([array[: len(part)].copy() for array, _ in self._outputs])
        found = [np.concatenate([p[i] for p in parts]) for i in range(len(self._outputs))]
        self._last = [values[-1] for values in found]
        return found

    def read_signals(self) -> list[Any]:
        """Return the last image's outputs, float32: probabilities, features and logits."""
        return self._last

    def time_images(self, images: Any, rounds: int, warmup: int) -> list[float]:
        """Return the milliseconds of each round: upload of an image, inference, download."""
        samples = []
        for turn in range(warmup + rounds):
            image = images[turn % len(images)][np.newaxis]
            start = self._cuda.mark()
            self._start(image)
            end = self._cuda.mark()
            self._cuda.wait()
            if turn >= warmup:
                samples.append(self._cuda.elapsed(start, end))
        return samples

    def time_layers(self, images: Any, rounds: int, warmup: int) -> dict[str, list[float]]:
        """Return layer -> its milliseconds in each round, one image each.

        TensorRT's profiler stays with the engine, and slows what it runs afterwards.
        """
        found: dict[str, list[float]] = {}

        class Profiler(self._trt.IProfiler):  # type: ignore[name-defined, misc]
            def report_layer_time(self, layer_name: str, ms: float) -> None:
                found.setdefault(layer_name, []).append(ms)

        self._profiler = self._context.profiler = Profiler()
        for turn in range(warmup + rounds):
            if turn == warmup:
                found.clear()
            self._start(images[turn % len(images)][np.newaxis])
            self._cuda.wait()
        return found

    def _start(self, part: Any) -> None:
        count = len(part)
        self._images[:count] = part
        if not self._context.set_input_shape(self._input, tuple(part.shape)):
            raise BuildError(
                "the engine does not accept {} images of {}: {}".format(
                    count, list(part.shape[1:]), "; ".join(self._logger.errors)
                )
            )
        self._cuda.upload(self._upload, self._images[:count])
        if not self._context.execute_async_v3(self._cuda.handle):
            raise BuildError("inference failed: " + "; ".join(self._logger.errors))
        for array, address in self._outputs:
            self._cuda.download(array[:count], address)

    def close(self) -> None:
        """Release the engine, then the memory."""
        self._context = self._engine = self._runtime = None
        self._cuda.close()
