"""The CUDA functions that an engine needs, through pycuda or cuda-python.

Both bindings use the GPU's primary context, so that several engines share it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lesiontk.backends.tensorrt.on_device import MissingRequirementError


class PyCuda:
    """The required CUDA functions, through pycuda."""

    def __init__(self) -> None:
        import pycuda.driver as driver

        self._cuda = driver
        driver.init()
        if driver.Device.count() == 0:
            raise MissingRequirementError("CUDA found no GPU.")
        gpu = driver.Device(0)
        self._context = gpu.retain_primary_context()
        self._context.push()
        multiprocessors = gpu.get_attribute(driver.device_attribute.MULTIPROCESSOR_COUNT)
        self.device = describe_gpu(gpu.name(), gpu.compute_capability(), multiprocessors)
        self.stream = driver.Stream()
        self.handle = self.stream.handle
        self._memory: list[Any] = []

    def pinned(self, shape: tuple[int, ...], dtype: Any) -> Any:
        """Return an array in page-locked memory."""
        return self._cuda.pagelocked_empty(shape, dtype)

    def allocate(self, size: int) -> int:
        """Return the address of `size` bytes on the GPU."""
        memory = self._cuda.mem_alloc(size)
        self._memory.append(memory)
        return int(memory)

    def upload(self, address: int, array: Any) -> None:
        """Start copying an array to the GPU."""
        self._cuda.memcpy_htod_async(address, array, self.stream)

    def download(self, array: Any, address: int) -> None:
        """Start copying from the GPU into an array."""
        self._cuda.memcpy_dtoh_async(array, address, self.stream)

    def mark(self) -> Any:
        """Return an event recorded at this point of the stream."""
        event = self._cuda.Event()
        event.record(self.stream)
        return event

    def elapsed(self, start: Any, end: Any) -> float:
        """Return the milliseconds between two events."""
        return float(start.time_till(end))

    def wait(self) -> None:
        """Wait until the stream is done."""
        self.stream.synchronize()

    def close(self) -> None:
        """Free the GPU memory."""
        for memory in self._memory:
            memory.free()
        self._memory = []
        if self._context is not None:
            self._context.pop()
            self._context.detach()
            self._context = None


class CudaPython:
    """The required CUDA functions, through cuda-python."""

    def __init__(self) -> None:
        try:
            from cuda.bindings import runtime
        except ImportError:
            from cuda import cudart as runtime

        self._cuda = runtime
        count = self._call(runtime.cudaGetDeviceCount())
        if not count:
            raise MissingRequirementError("CUDA found no GPU.")
        self._call(runtime.cudaSetDevice(0))
        gpu = self._call(runtime.cudaGetDeviceProperties(0))
        name = gpu.name.decode() if isinstance(gpu.name, bytes) else str(gpu.name)
        self.device = describe_gpu(name, (gpu.major, gpu.minor), gpu.multiProcessorCount)
        self.stream = self._call(runtime.cudaStreamCreate())
        self.handle = int(self.stream)
        self._memory: list[int] = []
        self._pinned: list[int] = []

    def _call(self, result: Any) -> Any:
        """Return the values of a call. Raises `MissingRequirementError` with CUDA's error."""
        code, values = result[0], result[1:]
        if int(code) != 0:
            raise MissingRequirementError(f"CUDA error {int(code)} ({code}).")
        return values[0] if len(values) == 1 else values

    def pinned(self, shape: tuple[int, ...], dtype: Any) -> Any:
        """Return an array in page-locked memory."""
        import ctypes

        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        address = int(self._call(self._cuda.cudaMallocHost(size)))
        self._pinned.append(address)
        memory = (ctypes.c_byte * size).from_address(address)
        return np.frombuffer(memory, dtype).reshape(shape)

    def allocate(self, size: int) -> int:
        """Return the address of `size` bytes on the GPU."""
        address = int(self._call(self._cuda.cudaMalloc(size)))
        self._memory.append(address)
        return address

    def upload(self, address: int, array: Any) -> None:
        """Start copying an array to the GPU."""
        self._copy(address, array.ctypes.data, array.nbytes, "cudaMemcpyHostToDevice")

    def download(self, array: Any, address: int) -> None:
        """Start copying from the GPU into an array."""
        self._copy(array.ctypes.data, address, array.nbytes, "cudaMemcpyDeviceToHost")

    def _copy(self, to: int, source: int, size: int, kind: str) -> None:
        direction = getattr(self._cuda.cudaMemcpyKind, kind)
        self._call(self._cuda.cudaMemcpyAsync(to, source, size, direction, self.stream))

    def mark(self) -> Any:
        """Return an event recorded at this point of the stream."""
        event = self._call(self._cuda.cudaEventCreate())
        self._call(self._cuda.cudaEventRecord(event, self.stream))
        return event

    def elapsed(self, start: Any, end: Any) -> float:
        """Return the milliseconds between two events."""
        return float(self._call(self._cuda.cudaEventElapsedTime(start, end)))

    def wait(self) -> None:
        """Wait until the stream is done."""
        self._call(self._cuda.cudaStreamSynchronize(self.stream))

    def close(self) -> None:
        """Free the memory."""
        for address in self._memory:
            self._cuda.cudaFree(address)
        for address in self._pinned:
            self._cuda.cudaFreeHost(address)
        self._memory, self._pinned = [], []


def describe_gpu(name: str, capability: tuple[int, int], multiprocessors: int) -> str:
    """Return what an engine is built for; all Orins have the same name and capability."""
    major, minor = capability
    return f"{name}, compute capability {major}.{minor}, {multiprocessors} multiprocessors"


def open_cuda() -> Any:
    """Return `PyCuda`, or `CudaPython`.

    Raises `MissingRequirementError` with the reason of each if neither works.
    """
    reasons = []
    for name, binding in (("pycuda", PyCuda), ("cuda-python", CudaPython)):
        try:
            return binding()
        except Exception as error:  # noqa: BLE001 - the bindings' exceptions have no common base
            reasons.append(f"{name}: {str(error) or type(error).__name__}")
    raise MissingRequirementError("no GPU can be used ({}).".format("; ".join(reasons)))
