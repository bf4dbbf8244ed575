"""Build a TensorRT engine from an ONNX file and run it.

A bundle for a device contains this file. It needs Python 3.8 or later, NumPy, TensorRT 8.5 or later
(or TensorRT for RTX), and pycuda or cuda-python. It does not import lesiontk, which uses the same
functions: the tested code is the code on the device.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

WORKSPACE_BYTES = 1 << 30
FLAGS = {"float32": (), "float16": ("FP16",), "int8": ("INT8",), "mixed": ("INT8", "FP16")}
"""Precision -> builder flags, for TensorRT versions without strongly typed networks."""


class MissingRequirementError(Exception):
    """A package, a driver or a GPU is missing."""

    exit_code = 3


class BuildError(Exception):
    """TensorRT rejects the graph or the settings; the message contains its errors."""

    exit_code = 2


# ------------------------------------------------------------------ TensorRT


def import_tensorrt() -> Any:
    """Return the module ``tensorrt``, else ``tensorrt_rtx``."""
    reasons = []
    for name in ("tensorrt", "tensorrt_rtx"):
        try:
            return __import__(name)
        except (ImportError, OSError, RuntimeError) as error:
            reasons.append(f"{name}: {error}")
    raise MissingRequirementError(
        "TensorRT cannot be imported ({}). JetPack provides it as python3-libnvinfer.".format(
            "; ".join(reasons)
        )
    )


def version_of(trt: Any) -> str:
    """Return name and version, as ``tensorrt 10.3.0`` or ``tensorrt_rtx 1.7.1.116``."""
    return f"{trt.__name__} {trt.__version__}"


def make_logger(trt: Any) -> Any:
    """Return a logger that appends errors to its list `errors` instead of printing them."""

    class ErrorLogger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            text = without_driver_errors(message)
            if text and int(severity) <= int(trt.ILogger.Severity.ERROR):
                self.errors.append(text)

    return ErrorLogger()


def without_driver_errors(message: str) -> str:
    """Return a message in one line, without errors about a missing driver.

    TensorRT looks for a driver at each step and logs an error, although parsing and building need
    none.
    """
    return "; ".join(line for line in message.splitlines() if "catchCudaError" not in line)


def network_flags(trt: Any) -> int:
    """Return the flags of a network that is strongly typed, if supported.

    TensorRT 8 requires EXPLICIT_BATCH and has no strong typing, 10 has both flags, 11 and RTX
    dropped the first.
    """
    known = trt.NetworkDefinitionCreationFlag.__members__
    flags = 0
    for name in ("EXPLICIT_BATCH", "STRONGLY_TYPED"):
        if name in known:
            flags |= 1 << int(known[name])
    return flags


def is_strongly_typed(trt: Any) -> bool:
    """Return whether a network's types come from its graph, so that no precision flag is needed."""
    return "STRONGLY_TYPED" in trt.NetworkDefinitionCreationFlag.__members__


class RefusedGraphError(BuildError):
    """The parser rejects a graph; `nodes` contains node, operator and reason of each error."""

    def __init__(self, nodes: list[dict[str, str]]) -> None:
        self.nodes = nodes
        reasons = ["{node} ({operator}): {reason}".format(**node) for node in nodes]
        super().__init__("TensorRT's parser rejects the graph: " + "; ".join(reasons))


def make_builder(trt: Any, logger: Any) -> Any:
    """Return a builder. Raises `MissingRequirementError` without a driver."""
    try:
        return trt.Builder(logger)
    except TypeError as error:  # the binding raises it without a driver
        what = "TensorRT's builder requires an NVIDIA driver and GPU"
        raise MissingRequirementError(_reasons(what, logger)) from error


def has_timing_cache(trt: Any) -> bool:
    """Return whether builds use a timing cache.

    TensorRT for RTX has the methods, but they do nothing: it selects kernels on the user's GPU.
    """
    return bool(trt.__name__ != "tensorrt_rtx")


def parse_graph(trt: Any, builder: Any, logger: Any, content: bytes) -> Any:
    """Return (network, parser) of an ONNX file's bytes; `RefusedGraphError` with the reasons.

    The network is valid as long as its parser exists: keep both.
    """
    network = builder.create_network(network_flags(trt))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(content):
        errors = [read_error(parser.get_error(i)) for i in range(parser.num_errors)]
        text = "; ".join(logger.errors) or "no reason given"
        raise RefusedGraphError(errors or [{"node": "-", "operator": "-", "reason": text}])
    return network, parser


def read_error(error: Any) -> dict[str, str]:
    """Return node, operator and reason of a parser's error.

    TensorRT 8.5 reports only the node's index.
    """
    name = error.node_name() if hasattr(error, "node_name") else ""
    operator = error.node_operator() if hasattr(error, "node_operator") else ""
    return {
        "node": name or f"node {error.node()}",
        "operator": operator or "unknown operator",
        "reason": without_driver_errors(error.desc()) or "no reason given",
    }


def _reasons(what: str, logger: Any) -> str:
    return f"{what}: " + ("; ".join(logger.errors) or "no reason given")


def configure_build(
    trt: Any,
    builder: Any,
    network: Any,
    logger: Any,
    precision: str,
    batches: tuple[int, int, int] = (1, 1, 1),
    workspace: int = WORKSPACE_BYTES,
    capabilities: tuple[str, ...] = (),
) -> Any:
    """Return the builder config. Raises `BuildError` for a setting that TensorRT rejects.

    `batches` are the minimum, optimum and maximum batch size; `capabilities` such as ``SM86`` are
    the GPUs to build for on a machine without one, which only TensorRT for RTX supports.
    """
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace)
    if not is_strongly_typed(trt):
        for name in FLAGS[precision]:
            config.set_flag(trt.BuilderFlag.__members__[name])
    source = network.get_input(0)
    image_shape = tuple(source.shape)[1:]
    profile = builder.create_optimization_profile()
    profile.set_shape(source.name, *[(count, *image_shape) for count in batches])
    if not profile or config.add_optimization_profile(profile) < 0:
        raise BuildError(
            f"the optimization profile {list(batches)} of {source.name} is rejected; expected 1 <= "
            "minimum <= optimum <= maximum batch size"
        )
    if capabilities:
        _set_capabilities(trt, config, logger, capabilities)
    return config


def _set_capabilities(trt: Any, config: Any, logger: Any, capabilities: tuple[str, ...]) -> None:
    if not hasattr(trt, "ComputeCapability"):
        raise BuildError(
            f"{version_of(trt)} builds for the local GPU only; received compute capabilities "
            f"{list(capabilities)}, expected none"
        )
    known = trt.ComputeCapability.__members__
    config.num_compute_capabilities = len(capabilities)
    for index, name in enumerate(capabilities):
        # It only returns False, and the build then returns nothing.
        if name not in known or config.set_compute_capability(known[name], index) is False:
            raise BuildError(
                "{} cannot build for {}; known are {}. {}".format(
                    version_of(trt),
                    name,
                    ", ".join(k for k in known if k.startswith("SM")),
                    "; ".join(logger.errors),
                ).strip()
            )


def build_plan(builder: Any, network: Any, config: Any, logger: Any) -> bytes:
    """Return the serialized engine; `BuildError` with TensorRT's reasons if there is none."""
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise BuildError(_reasons("TensorRT built no engine", logger))
    return bytes(plan)


def build_from_onnx(
    trt: Any,
    content: bytes,
    precision: str,
    timing_cache: Path | None = None,
    **settings: Any,
) -> bytes:
    """Return the serialized engine of an ONNX file's bytes.

    Timings are read from the file `timing_cache` and added to it; the other settings are those of
    `configure_build`.
    """
    if timing_cache is not None and not has_timing_cache(trt):
        raise BuildError(f"{version_of(trt)} does not support a timing cache; expected none")
    logger = make_logger(trt)
    builder = make_builder(trt, logger)
    network, parser = parse_graph(trt, builder, logger, content)
    config = configure_build(trt, builder, network, logger, precision, **settings)
    if timing_cache is not None:
        known = timing_cache.read_bytes() if timing_cache.is_file() else b""
        cache = config.create_timing_cache(known)
        if cache is None or config.set_timing_cache(cache, False) is False:
            raise BuildError(
                _reasons(
                    f"{timing_cache} belongs to another GPU or TensorRT version; remove it", logger
                )
            )
    plan = build_plan(builder, network, config, logger)
    if timing_cache is not None:
        timing_cache.write_bytes(bytes(config.get_timing_cache().serialize()))
    del parser
    return plan


# ---------------------------------------------------------------------- CUDA


class PyCuda:
    """The required CUDA functions, through pycuda."""

    def __init__(self) -> None:
        import pycuda.driver as driver

        self._cuda = driver
        driver.init()
        if driver.Device.count() == 0:
            raise MissingRequirementError("CUDA found no GPU.")
        self._context = driver.Device(0).make_context()
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


# ----------------------------------------------------------------------- run


class Runner:
    """A serialized engine on the GPU: uint8 [N, S, S, 3] in, float32 [N, C] out."""

    def __init__(self, trt: Any, cuda: Any, plan: bytes) -> None:
        self.description: dict[str, Any] = {}
        self._trt, self._cuda = trt, cuda
        self._logger = make_logger(trt)
        try:
            self._runtime = trt.Runtime(self._logger)
        except TypeError as error:  # the binding raises it without a driver
            what = "TensorRT's runtime requires an NVIDIA driver and GPU"
            raise MissingRequirementError(_reasons(what, self._logger)) from error
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
        if len(inputs) != 1 or len(outputs) != 1:
            raise BuildError(
                f"the engine has the inputs {inputs} and outputs {outputs}; expected one of each."
            )
        self._input, self._output = inputs[0], outputs[0]
        max_shape = self._engine.get_tensor_profile_shape(self._input, 0)[2]
        self.images_at_once = int(max_shape[0])
        classes = int(tuple(self._engine.get_tensor_shape(self._output))[-1])
        self._context = self._engine.create_execution_context()
        if self._context is None:
            raise MissingRequirementError(
                "too little GPU memory to run the engine: " + "; ".join(self._logger.errors)
            )
        self._images = cuda.pinned(tuple(max_shape), np.uint8)
        self._outputs = cuda.pinned((self.images_at_once, classes), np.float32)
        self._addresses = (
            cuda.allocate(self._images.nbytes),
            cuda.allocate(self._outputs.nbytes),
        )
        self._context.set_tensor_address(self._input, self._addresses[0])
        self._context.set_tensor_address(self._output, self._addresses[1])

    def predict(self, images: Any) -> Any:
        """Return probabilities float32 [N, C], in batches of the engine's maximum size."""
        outputs = []
        for start in range(0, len(images), self.images_at_once):
            part = images[start : start + self.images_at_once]
            self._start(part)
            self._cuda.wait()
            outputs.append(self._outputs[: len(part)].copy())
        return np.concatenate(outputs)

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

    def _start(self, part: Any) -> None:
        count = len(part)
        self._images[:count] = part
        if not self._context.set_input_shape(self._input, tuple(part.shape)):
            raise BuildError(
                "the engine does not accept {} images of {}: {}".format(
                    count, list(part.shape[1:]), "; ".join(self._logger.errors)
                )
            )
        self._cuda.upload(self._addresses[0], self._images[:count])
        if not self._context.execute_async_v3(self._cuda.handle):
            raise BuildError("inference failed: " + "; ".join(self._logger.errors))
        self._cuda.download(self._outputs[:count], self._addresses[1])

    def close(self) -> None:
        """Release the engine, then the memory."""
        self._context = self._engine = self._runtime = None
        self._cuda.close()


# -------------------------------------------------------------------- bundle


def load_or_build(trt: Any, folder: Path, bundle: dict[str, Any]) -> tuple[bytes, str]:
    """Return the engine and ``loaded`` or ``built``.

    It is rebuilt if the file or TensorRT changed, or if the stored engine was modified:
    ``engine.json`` contains its SHA-256, because SHA256SUMS lists only the files of the original
    bundle.
    """
    settings = bundle["tensorrt"]
    content = (folder / bundle["engine"]["file"]).read_bytes()
    built_from = {"model_sha256": hashlib.sha256(content).hexdigest(), "tensorrt": version_of(trt)}
    plan_file, record_file = folder / "engine.plan", folder / "engine.json"
    if plan_file.is_file() and record_file.is_file():
        plan = plan_file.read_bytes()
        if read_record(record_file) == dict(
            built_from, plan_sha256=hashlib.sha256(plan).hexdigest()
        ):
            return plan, "loaded"
    plan = build_from_onnx(
        trt,
        content,
        settings["precision"],
        batches=tuple(settings["batches"]),
        workspace=settings["workspace_bytes"],
        timing_cache=folder / "timing.cache" if has_timing_cache(trt) else None,
    )
    plan_file.write_bytes(plan)
    built_from["plan_sha256"] = hashlib.sha256(plan).hexdigest()
    record_file.write_text(json.dumps(built_from, indent=1) + "\n")
    return plan, "built"


def read_record(path: Path) -> Any:
    """Return the content of ``engine.json``; None if it cannot be read, which causes a rebuild."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError, RecursionError):
        return None


def check_version(trt: Any, versions: list[str]) -> str:
    """Return a warning if this TensorRT is not among `versions`, else an empty string."""
    installed = ".".join(trt.__version__.split(".")[:2])
    if trt.__name__ == "tensorrt" and installed not in [
        ".".join(v.split(".")[:2]) for v in versions
    ]:
        return "this is TensorRT {}; the graph was checked for {}".format(
            trt.__version__, ", ".join(versions)
        )
    return ""


def open_engine(folder: Path, bundle: dict[str, Any], threads: int) -> Runner:
    """Return the bundle's engine on the GPU, built or loaded from an earlier build.

    `threads` is ignored, because the engine runs on the GPU.
    """
    trt = import_tensorrt()
    plan, how = load_or_build(trt, folder, bundle)
    runner = Runner(trt, open_cuda(), plan)
    runner.description = {
        "runtime": trt.__name__,
        "version": trt.__version__,
        "engine": how,
        "plan_bytes": len(plan),
        "warning": check_version(trt, bundle["tensorrt"]["versions"]),
    }
    return runner
