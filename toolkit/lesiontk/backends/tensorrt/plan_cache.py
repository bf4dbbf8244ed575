"""The engine of a bundle on the device: built once, then loaded.

A plan runs only on the GPU and with the TensorRT that built it. The folder ``plans`` of the bundle
contains one for each GPU, TensorRT version, ONNX file and setting, with a record that has its
SHA-256: the bundle's SHA256SUMS lists only what was there when it was made.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lesiontk.backends.tensorrt.cuda_bindings import open_cuda
from lesiontk.backends.tensorrt.dla_layers import DlaLayers, list_dla_layers
from lesiontk.backends.tensorrt.on_device import (
    BuildError,
    build_from_onnx,
    has_timing_cache,
    import_tensorrt,
    version_of,
)
from lesiontk.backends.tensorrt.plan_runner import Runner
from lesiontk.files.whole_files import write_whole

PLANS = "plans"


@dataclass(frozen=True)
class PlanSettings:
    """The part ``tensorrt`` of ``bundle.json``.

    `versions` are those of TensorRT for which the graph was checked, `batches` the least, usual and
    largest number of images.
    """

    precision: str
    versions: Sequence[str]
    batches: Sequence[int]
    workspace_bytes: int


@dataclass(frozen=True)
class BuiltFor:
    """What a plan depends on: GPU, TensorRT, the SHA-256 of the ONNX file, and settings."""

    device: str
    tensorrt: str
    model_sha256: str
    precision: str
    batches: Sequence[int]
    workspace_bytes: int


@dataclass(frozen=True)
class PlanRecord:
    """The file beside a plan; `dla` is None for a device without DLA."""

    built_for: BuiltFor
    plan_sha256: str
    dla: DlaLayers | None


def load_or_build(
    trt: Any, device: str, engine: Path, settings: PlanSettings
) -> tuple[bytes, PlanRecord, str]:
    """Return the plan of an ONNX file, its record, and ``loaded`` or ``built``.

    It is built if there is none for `device` (the GPU), this TensorRT, this ONNX file and these
    settings, or if the stored one is not as it was written. Raises `BuildError` for a graph that
    TensorRT rejects, and for a folder that cannot be written.
    """
    content = engine.read_bytes()
    built_for = BuiltFor(
        device=device,
        tensorrt=version_of(trt),
        model_sha256=hashlib.sha256(content).hexdigest(),
        precision=settings.precision,
        batches=settings.batches,
        workspace_bytes=settings.workspace_bytes,
    )
    place = engine.with_name(PLANS) / name_of(**asdict(built_for))
    plan_file, record_file = place.with_suffix(".plan"), place.with_suffix(".json")
    record = read_record(record_file)
    if plan_file.is_file() and record is not None and record.built_for == built_for:
        plan = plan_file.read_bytes()
        if record.plan_sha256 == hashlib.sha256(plan).hexdigest():
            return plan, record, "loaded"
    try:
        plan_file.parent.mkdir(exist_ok=True)
        timings = f"timing-{name_of(device=device, tensorrt=version_of(trt))}.cache"
        plan = build_from_onnx(
            trt,
            content,
            settings.precision,
            batches=tuple(settings.batches),
            workspace=settings.workspace_bytes,
            timing_cache=place.with_name(timings) if has_timing_cache(trt) else None,
        )
        record = PlanRecord(
            built_for,
            hashlib.sha256(plan).hexdigest(),
            list_dla_layers(trt, content, settings.precision),
        )
        text = json.dumps(asdict(record), indent=1) + "\n"
        write_whole({plan_file: plan, record_file: text.encode()})
    except OSError as error:
        raise BuildError(
            f"the engine that was built for this device cannot be stored: {error}. Run "
            "`run.py self-test` once as a user who may write to the bundle's folder"
        ) from error
    return plan, record, "built"


def name_of(**built_for: object) -> str:
    """Return a file name for what a plan was built for."""
    text = json.dumps(built_for, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def read_record(path: Path) -> PlanRecord | None:
    """Return a plan's record; None if it cannot be read, which causes a build."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return PlanRecord(**{**found, "built_for": BuiltFor(**found["built_for"])})
    except (OSError, ValueError, RecursionError, KeyError, TypeError):
        return None


def check_version(trt: Any, versions: Sequence[str]) -> str:
    """Return a warning if this TensorRT is not among `versions`, else an empty string."""
    installed = ".".join(trt.__version__.split(".")[:2])
    if trt.__name__ == "tensorrt" and installed not in [
        ".".join(v.split(".")[:2]) for v in versions
    ]:
        return "this is TensorRT {}; the graph was checked for {}".format(
            trt.__version__, ", ".join(versions)
        )
    return ""


def open_engine(engine: Path, bundle: Mapping[str, Any], threads: int) -> Runner:
    """Return the engine of a ``bundle.json`` on the GPU, built or loaded from an earlier build.

    `threads` is ignored, because the engine runs on the GPU.
    """
    settings = PlanSettings(**bundle["tensorrt"])
    trt, cuda = import_tensorrt(), open_cuda()
    try:
        plan, record, how = load_or_build(trt, cuda.device, engine, settings)
        runner = Runner(trt, cuda, plan)
    except BaseException:
        cuda.close()
        raise
    runner.description = {
        "runtime": trt.__name__,
        "version": trt.__version__,
        "precision": settings.precision,
        "device": cuda.device,
        "engine": how,
        "plan_bytes": len(plan),
        "warning": check_version(trt, settings.versions),
        "dla": record.dla,
    }
    return runner
