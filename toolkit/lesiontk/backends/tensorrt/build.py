"""Building an engine ahead of time, from settings to a serialized plan."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lesiontk.backends.tensorrt import on_device
from lesiontk.backends.tensorrt.installation import import_tensorrt
from lesiontk.document import Record
from lesiontk.errors import DataError, MissingRequirementError, UsageError
from lesiontk.files.whole_files import write_whole

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class BuildSettings:
    """How an engine is built.

    `batches` are the minimum, optimum and maximum batch size of its optimization profile;
    `workspace` is the scratch memory in bytes; `timing_cache` a file of earlier timings;
    `capabilities` the GPUs to build for, such as ``SM86``, by default the GPU of this machine.
    """

    batches: tuple[int, int, int] = (1, 1, 1)
    workspace: int = on_device.WORKSPACE_BYTES
    timing_cache: Path | None = None
    capabilities: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        least, usual, greatest = self.batches
        if not 1 <= least <= usual <= greatest:
            raise UsageError(
                f"the profile's batch sizes are {list(self.batches)}; expected 1 <= minimum <= "
                "optimum <= maximum."
            )
        if self.workspace < 1 << 20:
            raise UsageError(f"workspace is {self.workspace} bytes; expected at least {1 << 20}.")


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanFacts(Record):
    """A plan of `bytes` bytes, its builder, batch sizes as in `BuildSettings`, and its GPUs."""

    builder: str
    bytes: int
    sha256: str
    batches: tuple[int, int, int]
    capabilities: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltFile(PlanFacts):
    """The file of a plan; `operators` counts those of its graph by the type they compute in."""

    path: str
    precision: str
    operators: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class BuiltPlan:
    """A serialized engine and its builder."""

    content: bytes
    builder: str
    settings: BuildSettings

    def describe(self) -> PlanFacts:
        """Return what is recorded of it."""
        return PlanFacts(
            builder=self.builder,
            bytes=len(self.content),
            sha256=hashlib.sha256(self.content).hexdigest(),
            batches=self.settings.batches,
            capabilities=self.settings.capabilities,
        )


def build_file(path: Path, out: Path, settings: BuildSettings) -> BuiltFile:
    """Build the engine of an ONNX file, write it to `out` atomically, and return its description.

    Raises `DataError` for
    an invalid ONNX model; the other errors are those of `build_engine`.
    """
    from lesiontk.backends.tensorrt.check import load_model
    from lesiontk.backends.tensorrt.structure import inspect_graph

    for file in (out, settings.timing_cache):
        if file is not None and not file.parent.is_dir():
            raise UsageError(f"{file} cannot be written; expected an existing folder.")
    load_model(path)
    operators = inspect_graph(path).operators
    present = [name for name in ("int8", "float16") if operators.get(name)]
    precision = "mixed" if len(present) == 2 else "".join(present) or "float32"
    logger.info("%s: building its %s engine", path.name, precision)
    plan = build_engine(path, precision, settings)
    write_whole({out: plan.content})
    return BuiltFile(
        path=str(out),
        precision=precision,
        operators=operators,
        **plan.describe().field_values(),
    )


def build_engine(path: Path, precision: str, settings: BuildSettings | None = None) -> BuiltPlan:
    """Build the engine of an ONNX file.

    TensorRT for RTX builds are reproducible for a fixed batch size; for a range it numbers some
    kernels differently each time.

    Raises `DataError` with TensorRT's reasons if it refuses the graph or a setting,
    `MissingRequirementError` if TensorRT or its driver is missing.
    """
    if precision not in on_device.FLAGS:
        known = ", ".join(on_device.FLAGS)
        raise UsageError(f"precision is {precision!r}; expected one of {known}.")
    settings = settings or BuildSettings()
    trt = import_tensorrt()
    try:
        content = on_device.build_from_onnx(
            trt,
            path.read_bytes(),
            precision,
            timing_cache=settings.timing_cache,
            batches=settings.batches,
            workspace=settings.workspace,
            capabilities=settings.capabilities,
        )
    except on_device.MissingRequirementError as error:
        raise MissingRequirementError(f"{path.name}: {error}") from error
    except on_device.BuildError as error:
        raise DataError(f"{path.name}: {str(error).rstrip('.')}.") from error
    return BuiltPlan(content, on_device.version_of(trt), settings)
