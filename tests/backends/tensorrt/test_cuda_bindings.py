"""Both CUDA bindings, by stand-ins of their modules that record what they are asked."""

from __future__ import annotations

import ctypes
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from lesiontk.backends.tensorrt import cuda_bindings
from lesiontk.backends.tensorrt.on_device import MissingRequirementError

ORIN = "Orin, compute capability 8.7, 16 multiprocessors"


class FakeDriver(ModuleType):
    """The module ``pycuda.driver``: contexts form a stack, a device has one primary context."""

    def __init__(self) -> None:
        super().__init__("pycuda.driver")
        self.stack: list[object] = []
        self.retained = 0
        self.freed = 0
        driver = self

        class Context:
            def push(self) -> None:
                driver.stack.append(self)

            @staticmethod
            def pop() -> None:
                driver.stack.pop()

            def detach(self) -> None:
                driver.retained -= 1

        primary = Context()

        class Device:
            def __init__(self, number: int) -> None:
                assert number == 0

            @staticmethod
            def count() -> int:
                return 1

            def retain_primary_context(self) -> Context:
                driver.retained += 1
                return primary

            def get_attribute(self, attribute: str) -> int:
                return {"multiprocessors": 16}[attribute]

            def name(self) -> str:
                return "Orin"

            def compute_capability(self) -> tuple[int, int]:
                return 8, 7

        class Memory(int):
            def free(self) -> None:
                assert driver.stack, "memory is freed without a context"
                driver.freed += 1

        self.Device = Device
        self.device_attribute = SimpleNamespace(MULTIPROCESSOR_COUNT="multiprocessors")
        self.Stream = lambda: SimpleNamespace(handle=5, synchronize=lambda: None)
        self.mem_alloc = lambda size: Memory(4096 + size)
        self.pagelocked_empty = np.empty
        self.init = lambda: None


def test_pycuda_shares_the_primary_context_between_engines(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With a context each, the second engine's would hide the first one's memory."""
    driver = FakeDriver()
    package = ModuleType("pycuda")
    monkeypatch.setattr(package, "driver", driver, raising=False)
    monkeypatch.setitem(sys.modules, "pycuda", package)
    monkeypatch.setitem(sys.modules, "pycuda.driver", driver)
    first, second = cuda_bindings.open_cuda(), cuda_bindings.open_cuda()
    assert isinstance(first, cuda_bindings.PyCuda)
    assert first.device == second.device == ORIN
    assert len(set(driver.stack)) == 1
    for binding in (first, second):
        binding.allocate(16)
    first.close()
    first.close()  # a second time does nothing
    assert (driver.freed, driver.retained, len(driver.stack)) == (1, 1, 1)
    second.close()
    assert (driver.freed, driver.retained, len(driver.stack)) == (2, 0, 0)


class FakeRuntime(ModuleType):
    """The module ``cuda.bindings.runtime``; `fault` is the code of every call but the count."""

    def __init__(self, fault: int = 0) -> None:
        super().__init__("cuda.bindings.runtime")
        self.log: list[str] = []
        self.memory: dict[int, Any] = {}
        self.cudaMemcpyKind = SimpleNamespace(cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2)
        properties = SimpleNamespace(name=b"Orin", major=8, minor=7, multiProcessorCount=16)
        values = {
            "cudaGetDeviceCount": 1,
            "cudaSetDevice": None,
            "cudaGetDeviceProperties": properties,
            "cudaStreamCreate": 9,
            "cudaStreamSynchronize": None,
            "cudaFree": None,
            "cudaFreeHost": None,
        }
        for name, value in values.items():
            setattr(self, name, self._answer(name, value, fault))

    def _answer(self, name: str, value: object, fault: int) -> Any:
        def call(*arguments: object) -> tuple[object, ...]:
            self.log.append(name)
            code = 0 if name == "cudaGetDeviceCount" else fault
            return (code,) if value is None else (code, value)

        return call

    def cudaMalloc(self, size: int) -> tuple[int, int]:  # noqa: N802
        return self.cudaMallocHost(size)

    def cudaMallocHost(self, size: int) -> tuple[int, int]:  # noqa: N802
        block = ctypes.create_string_buffer(size)
        self.memory[ctypes.addressof(block)] = block
        return 0, ctypes.addressof(block)

    def cudaMemcpyAsync(  # noqa: N802
        self, to: int, source: int, size: int, kind: int, stream: int
    ) -> tuple[int]:
        assert stream == 9
        ctypes.memmove(to, source, size)
        return (0,)


def install(monkeypatch: pytest.MonkeyPatch, runtime: FakeRuntime) -> None:
    """Make cuda-python's modules these, and pycuda one that is not installed."""
    monkeypatch.setitem(sys.modules, "pycuda", None)
    monkeypatch.setitem(sys.modules, "pycuda.driver", None)
    bindings = ModuleType("cuda.bindings")
    bindings.runtime = runtime  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "cuda", ModuleType("cuda"))
    monkeypatch.setitem(sys.modules, "cuda.bindings", bindings)
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", runtime)


def test_cuda_python_copies_there_and_back(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = FakeRuntime()
    install(monkeypatch, runtime)
    binding = cuda_bindings.open_cuda()
    assert isinstance(binding, cuda_bindings.CudaPython)
    assert binding.device == ORIN
    sent, received = (binding.pinned((2, 3), np.float32) for _ in range(2))
    sent[:] = np.arange(6).reshape(2, 3)
    address = binding.allocate(sent.nbytes)
    binding.upload(address, sent)
    binding.download(received, address)
    binding.wait()
    np.testing.assert_array_equal(received, sent)
    binding.close()
    assert runtime.log.count("cudaFree") == 1
    assert runtime.log.count("cudaFreeHost") == 2


def test_the_reason_of_each_binding_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, FakeRuntime(fault=100))
    with pytest.raises(
        MissingRequirementError, match=r"no GPU can be used \(pycuda: .*cuda-python: CUDA error 100"
    ):
        cuda_bindings.open_cuda()
