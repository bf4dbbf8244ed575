"""Stand-ins for TensorRT and CUDA that record what they are asked, for code that needs a GPU.

The classes and members are those of NVIDIA's Python API from 8.5 to 10: what a version lacks is not
there, so that code which assumes it fails.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping
from enum import IntEnum
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

NO_DRIVER = "CUDA initialization failure with error: 35"
Answer = Callable[[NDArray[np.uint8]], NDArray[np.float32] | tuple[NDArray[np.float32], ...]]
"""The probabilities of images, or every output of the graph."""


def identify(content: bytes) -> str:
    """Return what the stand-ins know an ONNX file by."""
    return hashlib.sha256(content).hexdigest()


def make_plan(version: str, content: bytes) -> bytes:
    """Return what the stand-in of TensorRT `version` builds of an ONNX file."""
    return f"plan of {version}\n".encode() + content


class FakeMemory:
    """What lies on the GPU, by address."""

    def __init__(self) -> None:
        self.blocks: dict[int, NDArray[np.uint8]] = {}
        self.clock_ms = 0.0
        self.log: list[str] = []

    def read(self, address: int, dtype: Any, shape: tuple[int, ...]) -> NDArray[Any]:
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        return np.frombuffer(self.blocks[address][:size].tobytes(), dtype).reshape(shape)

    def write(self, address: int, values: NDArray[Any]) -> None:
        content = np.frombuffer(values.tobytes(), np.uint8)
        self.blocks[address][: len(content)] = content


class FakeCuda:
    """What `on_device.PyCuda` offers; copies happen when the stream is waited for."""

    def __init__(self, memory: FakeMemory) -> None:
        self.memory, self.log = memory, memory.log
        self.handle = 77
        self.device = "Orin, compute capability 8.7, 16 multiprocessors"
        self.closed = False
        self._waiting: list[Callable[[], None]] = []

    def pinned(self, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
        return np.zeros(shape, dtype)

    def allocate(self, size: int) -> int:
        address = 4096 * (1 + len(self.memory.blocks))
        self.memory.blocks[address] = np.zeros(size, np.uint8)
        return address

    def upload(self, address: int, array: NDArray[Any]) -> None:
        self.log.append(f"upload {len(array)}")
        self.memory.write(address, array)

    def download(self, array: NDArray[Any], address: int) -> None:
        self.log.append(f"download {len(array)}")

        def copy() -> None:
            array[:] = self.memory.read(address, array.dtype, array.shape)

        self._waiting.append(copy)

    def mark(self) -> float:
        self.log.append("mark")
        return self.memory.clock_ms

    def elapsed(self, start: float, end: float) -> float:
        return end - start

    def wait(self) -> None:
        self.log.append("wait")
        for copy in self._waiting:
            copy()
        self._waiting.clear()

    def close(self) -> None:
        self.closed = True


class FakeTensorRT:
    """The module ``tensorrt`` of one version.

    `refuse` makes the parser refuse, only `refused` files if there are any; `answer` is what an
    engine gives for images; `answers` and `times_ms` are those of single ONNX files, by `identify`.
    Without `driver` there is no builder, as in TensorRT proper. With `dla_cores`, all operators but
    `not_on_dla` can run there.
    """

    __name__ = "tensorrt"

    def __init__(
        self,
        version: str,
        memory: FakeMemory,
        answer: Answer,
        *,
        refuse: str = "",
        refused: Collection[str] = (),
        driver: bool = True,
        answers: Mapping[str, Answer] | None = None,
        times_ms: Mapping[str, float] | None = None,
        dla_cores: int = 0,
        not_on_dla: Collection[str] = (),
    ) -> None:
        answers, times_ms = answers or {}, times_ms or {}
        self.__version__ = version
        self.log = memory.log
        major = int(version.split(".")[0])
        modern = major >= 10
        flags = {} if major >= 11 else {"EXPLICIT_BATCH": 0}
        self.NetworkDefinitionCreationFlag = IntEnum(
            "NetworkDefinitionCreationFlag", {**flags, **({"STRONGLY_TYPED": 1} if modern else {})}
        )
        precisions = {} if major >= 11 else {"FP16": 0, "INT8": 1}
        self.BuilderFlag = IntEnum("BuilderFlag", {**precisions, "TF32": 7})
        self.MemoryPoolType = IntEnum("MemoryPoolType", {"WORKSPACE": 0})
        self.TensorIOMode = IntEnum("TensorIOMode", {"INPUT": 1, "OUTPUT": 2})
        self.DeviceType = IntEnum("DeviceType", {"GPU": 0, "DLA": 1})
        fake, log = self, self.log

        class Logger:
            Severity = IntEnum(
                "Severity", {"INTERNAL_ERROR": 0, "ERROR": 1, "WARNING": 2, "INFO": 3}
            )

        def shape_of(entry: onnx.ValueInfoProto) -> tuple[int, ...]:
            dims = [dim.dim_value or -1 for dim in entry.type.tensor_type.shape.dim]
            return (-1, *dims[1:])

        class Network:
            graph: onnx.GraphProto
            content: bytes

            def get_input(self, index: int) -> SimpleNamespace:
                entry = self.graph.input[index]
                return SimpleNamespace(name=entry.name, shape=shape_of(entry))

            @property
            def num_layers(self) -> int:
                return len(self.graph.node)

            def get_layer(self, index: int) -> onnx.NodeProto:
                return self.graph.node[index]

        class Profile:
            def __init__(self) -> None:
                self.shapes: tuple[tuple[int, ...], ...] = ()

            def set_shape(self, name: str, *shapes: tuple[int, ...]) -> None:
                log.append(f"profile {name} {[s[0] for s in shapes]}")
                self.shapes = shapes

            def __bool__(self) -> bool:
                return list(self.shapes) == sorted(self.shapes)

        class Cache:
            def __init__(self, content: bytes) -> None:
                self.content = content

            def serialize(self) -> bytes:
                return self.content + b"timed;"

        class Config:
            def set_memory_pool_limit(self, pool: int, size: int) -> None:
                log.append(f"workspace {size}")

            def set_flag(self, flag: IntEnum) -> None:
                log.append(f"flag {flag.name}")

            def add_optimization_profile(self, profile: Profile) -> int:
                return 0 if profile else -1

            def create_timing_cache(self, content: bytes) -> Cache:
                log.append(f"timing cache of {len(content)} bytes")
                self.cache = Cache(content)
                return self.cache

            def set_timing_cache(self, cache: Cache, ignore_mismatch: bool) -> bool:
                return not ignore_mismatch and cache.content != b"of another GPU"

            def get_timing_cache(self) -> Cache:
                return self.cache

            def can_run_on_DLA(self, layer: onnx.NodeProto) -> bool:  # noqa: N802
                assert self.default_device_type is fake.DeviceType["DLA"]
                return layer.op_type not in not_on_dla

            default_device_type = self.DeviceType["GPU"]

        class Builder:
            num_DLA_cores = dla_cores  # noqa: N815

            def __init__(self, logger: Any) -> None:
                log.append("builder")
                if not driver:
                    logger.log(Logger.Severity.ERROR, NO_DRIVER)
                    raise TypeError("pybind11::init(): factory function returned nullptr")

            def create_network(self, flags: int) -> Network:
                known = fake.NetworkDefinitionCreationFlag
                names = [m.name for m in known if flags & 1 << int(m)]
                log.append(f"network {'+'.join(names) or 'plain'}")
                return Network()

            def create_builder_config(self) -> Config:
                return Config()

            def create_optimization_profile(self) -> Profile:
                return Profile()

            def build_serialized_network(self, network: Network, config: Config) -> bytes:
                log.append("build")
                return make_plan(fake.__version__, network.content)

        class NumberedError:
            """All that TensorRT 8.5 tells."""

            def node(self) -> int:
                return 3

            def desc(self) -> str:
                return refuse

        class NamedError(NumberedError):
            def node_name(self) -> str:
                return "second"

            def node_operator(self) -> str:
                return "Conv"

        class Parser:
            num_errors = 1

            def __init__(self, network: Network, logger: Logger) -> None:
                self.network = network

            def parse(self, content: bytes) -> bool:
                log.append("parse")
                self.network.content = content
                if refuse and identify(content) in (refused or [identify(content)]):
                    return False
                self.network.graph = onnx.load_model_from_string(content).graph
                return True

            def get_error(self, index: int) -> NumberedError:
                return NamedError() if modern else NumberedError()

        class IProfiler:
            """What is told the time of each layer after an execution."""

        self.IProfiler = IProfiler

        class Context:
            def __init__(self, engine: Engine) -> None:
                self.engine = engine
                self.addresses: dict[str, int] = {}
                self.shape: tuple[int, ...] = ()
                self.profiler: Any = None

            def set_tensor_address(self, name: str, address: int) -> bool:
                self.addresses[name] = address
                return True

            def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
                self.shape = shape
                return shape[1:] == self.engine.get_tensor_shape(name)[1:]

            def execute_async_v3(self, stream: int) -> bool:
                log.append(f"execute {self.shape[0]} on {stream}")
                images = memory.read(self.addresses["image"], np.uint8, self.shape)
                found = answers.get(self.engine.file, answer)(images)
                outputs = found if isinstance(found, tuple) else (found,)
                for entry, values in zip(self.engine.graph.output, outputs, strict=True):
                    memory.write(self.addresses[entry.name], np.asarray(values, np.float32))
                memory.clock_ms += times_ms.get(self.engine.file, 0.5)
                for number, node in enumerate(self.engine.graph.node if self.profiler else ()):
                    self.profiler.report_layer_time(node.name or node.output[0], 0.25 + number)
                return True

        class Engine:
            def __init__(self, content: bytes) -> None:
                self.file = identify(content)
                self.graph = onnx.load_model_from_string(content).graph
                self.entries = [*self.graph.input, *self.graph.output]
                self.num_io_tensors = len(self.entries)

            def get_tensor_name(self, index: int) -> str:
                return str(self.entries[index].name)

            def get_tensor_mode(self, name: str) -> IntEnum:
                mode = fake.TensorIOMode
                return mode["INPUT"] if name == "image" else mode["OUTPUT"]

            def get_tensor_profile_shape(self, name: str, index: int) -> list[tuple[int, ...]]:
                return [(count, *self.get_tensor_shape(name)[1:]) for count in (1, 1, 4)]

            def get_tensor_shape(self, name: str) -> tuple[int, ...]:
                return shape_of(next(entry for entry in self.entries if entry.name == name))

            def create_execution_context(self) -> Context:
                return Context(self)

        class Runtime:
            def __init__(self, logger: Logger) -> None:
                log.append("runtime")

            def deserialize_cuda_engine(self, plan: bytes) -> Engine | None:
                head, _, content = plan.partition(b"\n")
                return Engine(content) if head.endswith(fake.__version__.encode()) else None

        self.ILogger, self.Builder, self.OnnxParser, self.Runtime = Logger, Builder, Parser, Runtime
