"""Build a TensorRT engine from an ONNX file.

Bundles for a device contain this file, `cuda_bindings`, `dla_layers`, `plan_runner` and
`plan_cache`. They need Python 3.8 or later, NumPy, TensorRT 8.5 or later (or TensorRT for RTX), and
pycuda or cuda-python. They do not need lesiontk, which uses the same functions: the tested code is
the code on the device.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lesiontk.files.whole_files import write_whole

WORKSPACE_BYTES = 1 << 30
FLAGS = {"float32": (), "float16": ("FP16",), "int8": ("INT8",), "mixed": ("INT8", "FP16")}
"""Precision -> builder flags, for TensorRT versions without strongly typed networks."""


class MissingRequirementError(Exception):
    """A package, a driver or a GPU is missing."""

    exit_code = 3


class BuildError(Exception):
    """TensorRT rejects the graph or the settings; the message contains its errors."""

    exit_code = 2


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


def network_flags(trt: Any, strong: bool = True) -> int:
    """Return the flags of a network that is strongly typed, if supported and `strong`.

    TensorRT 8 requires EXPLICIT_BATCH and has no strong typing, 10 has both flags, 11 and RTX
    dropped the first.
    """
    known = trt.NetworkDefinitionCreationFlag.__members__
    flags = 0
    for name in ("EXPLICIT_BATCH", "STRONGLY_TYPED") if strong else ("EXPLICIT_BATCH",):
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
        raise MissingRequirementError(describe_errors(what, logger)) from error


def has_timing_cache(trt: Any) -> bool:
    """Return whether builds use a timing cache.

    TensorRT for RTX has the methods, but they do nothing: it selects kernels on the user's GPU.
    """
    return bool(trt.__name__ != "tensorrt_rtx")


def parse_graph(trt: Any, builder: Any, logger: Any, content: bytes, strong: bool = True) -> Any:
    """Return (network, parser) of an ONNX file's bytes; `RefusedGraphError` with the reasons.

    The network is valid as long as its parser exists: keep both.
    """
    network = builder.create_network(network_flags(trt, strong))
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


def describe_errors(what: str, logger: Any) -> str:
    """Return `what` with the errors that TensorRT logged."""
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
        raise BuildError(describe_errors("TensorRT built no engine", logger))
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
                describe_errors(
                    f"{timing_cache} belongs to another GPU or TensorRT version; remove it", logger
                )
            )
    plan = build_plan(builder, network, config, logger)
    if timing_cache is not None:
        write_whole({timing_cache: bytes(config.get_timing_cache().serialize())})
    del parser
    return plan
