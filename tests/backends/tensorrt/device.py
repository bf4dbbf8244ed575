"""What a device with TensorRT answers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lesiontk.backends.tensorrt import on_device
from tests.backends.tensorrt.fake_tensorrt import FakeCuda, FakeMemory, FakeTensorRT


def answer(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Three probabilities that differ from image to image."""
    logits = images[:, 0, 0].astype(np.float32) / 64
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True), np.float32)


class Device:
    """A machine with the stand-ins."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, version: str, **settings: Any) -> None:
        self.memory = FakeMemory()
        self.log = self.memory.log
        self.trt = FakeTensorRT(version, self.memory, settings.pop("answer", answer), **settings)
        self.cuda = FakeCuda(self.memory)
        monkeypatch.setattr(on_device, "import_tensorrt", lambda: self.trt)
        monkeypatch.setattr(on_device, "open_cuda", lambda: self.cuda)
