"""What a device with TensorRT answers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lesiontk.backends.tensorrt import plan_cache
from tests.backends.tensorrt.fake_tensorrt import FakeCuda, FakeMemory, FakeTensorRT


def answer(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Three probabilities that differ from image to image."""
    logits = images[:, 0, 0].astype(np.float32) / 64
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True), np.float32)


class Device:
    """A machine with the stand-ins; `cuda` is that of the engine that was opened last."""

    device = "Orin, compute capability 8.7, 16 multiprocessors"

    def __init__(self, monkeypatch: pytest.MonkeyPatch, version: str, **settings: Any) -> None:
        self.memory = FakeMemory()
        self.log = self.memory.log
        self.trt = FakeTensorRT(version, self.memory, settings.pop("answer", answer), **settings)
        self.cuda = FakeCuda(self.memory)
        self.opened: list[FakeCuda] = []
        monkeypatch.setattr(plan_cache, "import_tensorrt", lambda: self.trt)
        monkeypatch.setattr(plan_cache, "open_cuda", self.open_cuda)

    def open_cuda(self) -> FakeCuda:
        """Return what one engine uses; all of them share the GPU's memory."""
        self.cuda = FakeCuda(self.memory)
        self.cuda.device = self.device
        self.opened.append(self.cuda)
        return self.cuda
