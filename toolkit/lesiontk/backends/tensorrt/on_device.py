"""Builds a TensorRT engine from an ONNX file and runs it.

A bundle for a device carries this very file. It needs Python 3.8 or later, NumPy, TensorRT 8.5 or
later (or TensorRT for RTX), and pycuda or cuda-python; nothing of lesiontk, which itself uses these
same functions: what is tested there is what runs on the device.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

WORKSPACE_BYTES = 1 << 30
FLAGS = {"float32": (), "float16": ("FP16",), "int8": ("INT8",), "mixed": ("INT8", "FP16")}
"""Precision -> the builder's flags that permit it, before TensorRT takes types from the graph."""


class MissingRequirementError(Exception):
    """This machine lacks a package, a driver or a GPU."""

    exit_code = 3


class BuildError(Exception):
    """TensorRT refuses the graph or the settings; its own messages are in the text."""

    exit_code = 2


# ------------------------------------------------------------------ TensorRT


def import_tensorrt() -> Any:
    """Return the module ``tensorrt``, or ``tensorrt_rtx`` where there is no other."""
    reasons = []
    for name in ("tensorrt", "tensorrt_rtx"):
        try:
            return __import__(name)
        except (ImportError, OSError, RuntimeError) as error:
            reasons.append(f"{name}: {error}")
    raise MissingRequirementError(
        "no TensorRT can be imported ({}). JetPack has it as python3-libnvinfer.".format(
            "; ".join(reasons)
        )
    )


def version_of(trt: Any) -> str:
    """Return name and version, as ``tensorrt 10.3.0`` or ``tensorrt_rtx 1.7.1.116``."""
    return f"{trt.__name__} {trt.__version__}"


def make_logger(trt: Any) -> Any:
    """Return a logger that keeps errors in its list `errors`, instead of printing them."""

    class Keeper(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            said = leave_out_driver(message)
            if said and int(severity) <= int(trt.ILogger.Severity.ERROR):
                self.errors.append(said)

    return Keeper()


def leave_out_driver(message: str) -> str:
    """Return a message in one line, without what it says of a missing driver.

    TensorRT looks for one at each step and complains, though parsing and building need none.
    """
    return "; ".join(line for line in message.splitlines() if "catchCudaError" not in line)


def network_flags(trt: Any) -> int:
    """Return the flags with which a network takes its types from the graph, where it can.

    TensorRT 8 wants EXPLICIT_BATCH and knows no strong typing, 10 has both, 11 and RTX dropped the
    former.
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
    """The parser refuses a graph; `nodes` has node, operator and reason of each refusal."""

    def __init__(self, nodes: list[dict[str, str]]) -> None:
        self.nodes = nodes
        reasons = ["{node} ({operator}): {reason}".format(**node) for node in nodes]
        super().__init__("TensorRT's parser refuses the graph: " + "; ".join(reasons))


def make_builder(trt: Any, logger: Any) -> Any:
    """Return a builder; `MissingRequirementError` where TensorRT gives none."""
    try:
        return trt.Builder(logger)
    except TypeError as error:  # the binding's way of saying that there is no driver
        what = "TensorRT gives no builder without an NVIDIA driver and GPU"
        raise MissingRequirementError(_reasons(what, logger)) from error


def keeps_timings(trt: Any) -> bool:
    """Return whether a build accepts the timing cache of an earlier one.

    TensorRT for RTX has the methods, which do nothing: it chooses kernels on the user's GPU.
    """
    return bool(trt.__name__ != "tensorrt_rtx")


def parse_graph(trt: Any, builder: Any, logger: Any, content: bytes) -> Any:
    """Return (network, parser) of an ONNX file's bytes; `RefusedGraphError` with the reasons.

    The network lives as long as its parser: keep both.
    """
    network = builder.create_network(network_flags(trt))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(content):
        errors = [read_error(parser.get_error(i)) for i in range(parser.num_errors)]
        said = "; ".join(logger.errors) or "no reason given"
        raise RefusedGraphError(errors or [{"node": "-", "operator": "-", "reason": said}])
    return network, parser


def read_error(error: Any) -> dict[str, str]:
    """Return node, operator and reason of a parser's error.

    TensorRT 8.5 reports only the node's number.
    """
    name = error.node_name() if hasattr(error, "node_name") else ""
    operator = error.node_operator() if hasattr(error, "node_operator") else ""
    return {
        "node": name or f"node {error.node()}",
        "operator": operator or "unknown operator",
        "reason": leave_out_driver(error.desc()) or "no reason given",
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
    """Return the build's settings; `BuildError` for one that TensorRT does not take.

    `batches` are the least, usual and greatest number of images; `capabilities` such as ``SM86``
    are GPUs to build for where the machine has none, which only TensorRT for RTX can.
    """
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace)
    if not is_strongly_typed(trt):
        for name in FLAGS[precision]:
            config.set_flag(trt.BuilderFlag.__members__[name])
    source = network.get_input(0)
    picture = tuple(source.shape)[1:]
    profile = builder.create_optimization_profile()
    profile.set_shape(source.name, *[(count, *picture) for count in batches])
    if not profile or config.add_optimization_profile(profile) < 0:
        raise BuildError(
            f"the optimization profile {list(batches)} of {source.name} is refused; expected 1 <= "
            "least <= usual <= greatest number of images"
        )
    if capabilities:
        _aim_at(trt, config, logger, capabilities)
    return config


def _aim_at(trt: Any, config: Any, logger: Any, capabilities: tuple[str, ...]) -> None:
    if not hasattr(trt, "ComputeCapability"):
        raise BuildError(
            f"{version_of(trt)} builds for the GPU it runs on; expected no compute capability, not "
            f"{list(capabilities)}"
        )
    known = trt.ComputeCapability.__members__
    config.num_compute_capabilities = len(capabilities)
    for index, name in enumerate(capabilities):
        # It only returns False, and the build then gives nothing.
        if name not in known or config.set_compute_capability(known[name], index) is False:
            raise BuildError(
                "{} cannot build for {}; it knows {}. {}".format(
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
        raise BuildError(_reasons("TensorRT builds no engine", logger))
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
    if timing_cache is not None and not keeps_timings(trt):
        raise BuildError(f"{version_of(trt)} keeps no timings; expected no timing cache")
    logger = make_logger(trt)
    builder = make_builder(trt, logger)
    network, parser = parse_graph(trt, builder, logger, content)
    config = configure_build(trt, builder, network, logger, precision, **settings)
    if timing_cache is not None:
        known = timing_cache.read_bytes() if timing_cache.is_file() else b""
        cache = config.create_timing_cache(known)
        if cache is None or config.set_timing_cache(cache, False) is False:
            raise BuildError(
                _reasons(f"{timing_cache} is of another GPU or TensorRT; remove it", logger)
            )
    plan = build_plan(builder, network, config, logger)
    if timing_cache is not None:
        timing_cache.write_bytes(bytes(config.get_timing_cache().serialize()))
    del parser
    return plan


# ---------------------------------------------------------------------- CUDA


class PyCuda:
    """What is needed of CUDA, through pycuda."""

    def __init__(self) -> None:
        import pycuda.driver as driver

        self._cuda = driver
        driver.init()
        if driver.Device.count() == 0:
            raise MissingRequirementError("CUDA finds no GPU.")
        self._context = driver.Device(0).make_context()
        self.stream = driver.Stream()
        self.handle = self.stream.handle
        self._held: list[Any] = []

    def pinned(self, shape: tuple[int, ...], dtype: Any) -> Any:
        """Return an array in page-locked memory."""
        return self._cuda.pagelocked_empty(shape, dtype)

    def allocate(self, size: int) -> int:
        """Return the address of `size` bytes on the GPU."""
        memory = self._cuda.mem_alloc(size)
        self._held.append(memory)
        return int(memory)

    def upload(self, address: int, array: Any) -> None:
        """Start copying an array to the GPU."""
        self._cuda.memcpy_htod_async(address, array, self.stream)

    def download(self, array: Any, address: int) -> None:
        """Start copying from the GPU into an array."""
        self._cuda.memcpy_dtoh_async(array, address, self.stream)

    def mark(self) -> Any:
        """Return an event that stands at this point of the stream."""
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
        """Give the GPU's memory back."""
        for memory in self._held:
            memory.free()
        self._held = []
        if self._context is not None:
            self._context.pop()
            self._context = None


class CudaPython:
    """What is needed of CUDA, through cuda-python."""

    def __init__(self) -> None:
        try:
            from cuda.bindings import runtime
        except ImportError:
            from cuda import cudart as runtime

        self._cuda = runtime
        count = self._call(runtime.cudaGetDeviceCount())
        if not count:
            raise MissingRequirementError("CUDA finds no GPU.")
        self._call(runtime.cudaSetDevice(0))
        self.stream = self._call(runtime.cudaStreamCreate())
        self.handle = int(self.stream)
        self._held: list[int] = []
        self._pinned: list[int] = []

    def _call(self, result: Any) -> Any:
        """Return what a call gave; `MissingRequirementError` names what went wrong."""
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
        self._held.append(address)
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
        """Return an event that stands at this point of the stream."""
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
        """Give the memory back."""
        for address in self._held:
            self._cuda.cudaFree(address)
        for address in self._pinned:
            self._cuda.cudaFreeHost(address)
        self._held, self._pinned = [], []


def open_cuda() -> Any:
    """Return `PyCuda`, or `CudaPython`.

    Raises `MissingRequirementError` with the reason of each if neither works.
    """
    reasons = []
    for name, binding in (("pycuda", PyCuda), ("cuda-python", CudaPython)):
        try:
            return binding()
        except Exception as error:  # noqa: BLE001 - each binding has its own, of no common base
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
        except TypeError as error:  # the binding's way of saying that there is no driver
            what = "TensorRT gives no runtime without an NVIDIA driver and GPU"
            raise MissingRequirementError(_reasons(what, self._logger)) from error
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            raise BuildError(
                "the engine does not load here: {}. An engine belongs to the TensorRT and the GPU "
                "that built it; build it again.".format("; ".join(self._logger.errors))
            )
        names = [self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)]
        inputs = [n for n in names if self._engine.get_tensor_mode(n) == trt.TensorIOMode.INPUT]
        outputs = [n for n in names if n not in inputs]
        if len(inputs) != 1 or len(outputs) != 1:
            raise BuildError(f"the engine has {inputs} and gives {outputs}.")
        self._input, self._output = inputs[0], outputs[0]
        greatest = self._engine.get_tensor_profile_shape(self._input, 0)[2]
        self.images_at_once = int(greatest[0])
        classes = int(tuple(self._engine.get_tensor_shape(self._output))[-1])
        self._context = self._engine.create_execution_context()
        if self._context is None:
            raise MissingRequirementError(
                "no room to run the engine: " + "; ".join(self._logger.errors)
            )
        self._images = cuda.pinned(tuple(greatest), np.uint8)
        self._answers = cuda.pinned((self.images_at_once, classes), np.float32)
        self._addresses = (
            cuda.allocate(self._images.nbytes),
            cuda.allocate(self._answers.nbytes),
        )
        self._context.set_tensor_address(self._input, self._addresses[0])
        self._context.set_tensor_address(self._output, self._addresses[1])

    def predict(self, images: Any) -> Any:
        """Return probabilities float32 [N, C]; as many images at once as the engine takes."""
        answers = []
        for start in range(0, len(images), self.images_at_once):
            part = images[start : start + self.images_at_once]
            self._start(part)
            self._cuda.wait()
            answers.append(self._answers[: len(part)].copy())
        return np.concatenate(answers)

    def time_images(self, images: Any, rounds: int, warmup: int) -> list[float]:
        """Return the milliseconds of each round: one image up, through the engine, answer down."""
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
                "the engine does not take {} images of {}: {}".format(
                    count, list(part.shape[1:]), "; ".join(self._logger.errors)
                )
            )
        self._cuda.upload(self._addresses[0], self._images[:count])
        if not self._context.execute_async_v3(self._cuda.handle):
            raise BuildError("the engine fails to run: " + "; ".join(self._logger.errors))
        self._cuda.download(self._answers[:count], self._addresses[1])

    def close(self) -> None:
        """Release the engine, then the memory."""
        self._context = self._engine = self._runtime = None
        self._cuda.close()


# -------------------------------------------------------------------- bundle


def load_or_build(trt: Any, folder: Path, bundle: dict[str, Any]) -> tuple[bytes, str]:
    """Return the engine and ``loaded`` or ``built``.

    Rebuilt is one of another file or TensorRT, and one that is not as it was written:
    ``engine.json`` has its SHA-256, because SHA256SUMS lists only what the bundle came with.
    """
    settings = bundle["tensorrt"]
    content = (folder / bundle["engine"]["file"]).read_bytes()
    made_of = {"model_sha256": hashlib.sha256(content).hexdigest(), "tensorrt": version_of(trt)}
    plan_file, note_file = folder / "engine.plan", folder / "engine.json"
    if plan_file.is_file() and note_file.is_file():
        plan = plan_file.read_bytes()
        if read_note(note_file) == dict(made_of, plan_sha256=hashlib.sha256(plan).hexdigest()):
            return plan, "loaded"
    plan = build_from_onnx(
        trt,
        content,
        settings["precision"],
        batches=tuple(settings["batches"]),
        workspace=settings["workspace_bytes"],
        timing_cache=folder / "timing.cache" if keeps_timings(trt) else None,
    )
    plan_file.write_bytes(plan)
    made_of["plan_sha256"] = hashlib.sha256(plan).hexdigest()
    note_file.write_text(json.dumps(made_of, indent=1) + "\n")
    return plan, "built"


def read_note(path: Path) -> Any:
    """Return what ``engine.json`` says; None where it cannot be read, so that a build mends it."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError, RecursionError):
        return None


def check_version(trt: Any, versions: list[str]) -> str:
    """Return a warning where this TensorRT is none of `versions`, else nothing."""
    mine = ".".join(trt.__version__.split(".")[:2])
    if trt.__name__ == "tensorrt" and mine not in [".".join(v.split(".")[:2]) for v in versions]:
        return "this is TensorRT {}; the graph was checked for {}".format(
            trt.__version__, ", ".join(versions)
        )
    return ""


def open_engine(folder: Path, bundle: dict[str, Any], threads: int) -> Runner:
    """Build the bundle's engine, or load what was built before, and open it on the GPU.

    `threads` is of no use here: the engine runs on the GPU.
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
