"""The engine of a bundle on the device: built once, then loaded.

A plan runs only on the GPU and with the TensorRT that built it. The folder ``plans`` of the bundle
contains one for each GPU, TensorRT version, ONNX file and setting, with a record that has its
SHA-256: the bundle's SHA256SUMS lists only what was there when it was made.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from lesiontk.backends.tensorrt.cuda_bindings import open_cuda
from lesiontk.backends.tensorrt.dla_layers import list_dla_layers
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


def load_or_build(
    trt: Any, device: str, folder: Path, bundle: dict[str, Any]
) -> tuple[bytes, dict[str, Any], str]:
    """Return the plan, its record, and ``loaded`` or ``built``.

    It is built if there is none for `device` (the GPU), this TensorRT, this ONNX file and these
    settings, or if the stored one is not as it was written. Raises `BuildError` for a graph that
    TensorRT rejects, and for a folder that cannot be written.
    """
    settings = bundle["tensorrt"]
    content = (folder / bundle["engine"]["file"]).read_bytes()
    built_for = {
        "device": device,
        "tensorrt": version_of(trt),
        "model_sha256": hashlib.sha256(content).hexdigest(),
        "precision": settings["precision"],
        "batches": settings["batches"],
        "workspace_bytes": settings["workspace_bytes"],
    }
    place = folder / PLANS / name_of(built_for)
    plan_file, record_file = place.with_suffix(".plan"), place.with_suffix(".json")
    record = read_record(record_file)
    if plan_file.is_file() and record.get("built_for") == built_for:
        plan = plan_file.read_bytes()
        if record.get("plan_sha256") == hashlib.sha256(plan).hexdigest():
            return plan, record, "loaded"
    try:
        plan_file.parent.mkdir(exist_ok=True)
        timings = f"timing-{name_of({'device': device, 'tensorrt': version_of(trt)})}.cache"
        plan = build_from_onnx(
            trt,
            content,
            settings["precision"],
            batches=tuple(settings["batches"]),
            workspace=settings["workspace_bytes"],
            timing_cache=place.with_name(timings) if has_timing_cache(trt) else None,
        )
        record = {
            "built_for": built_for,
            "plan_sha256": hashlib.sha256(plan).hexdigest(),
            "dla": list_dla_layers(trt, content, settings["precision"]),
        }
        text = json.dumps(record, indent=1) + "\n"
        write_whole({plan_file: plan, record_file: text.encode()})
    except OSError as error:
        raise BuildError(
            f"the engine that was built for this device cannot be stored: {error}. Run "
            "`run.py self-test` once as a user who may write to the bundle's folder"
        ) from error
    return plan, record, "built"


def name_of(built_for: dict[str, Any]) -> str:
    """Return a file name for what a plan was built for."""
    text = json.dumps(built_for, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def read_record(path: Path) -> dict[str, Any]:
    """Return a plan's record; empty if it cannot be read, which causes a build."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}


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
    trt, cuda = import_tensorrt(), open_cuda()
    try:
        plan, record, how = load_or_build(trt, cuda.device, folder, bundle)
        runner = Runner(trt, cuda, plan)
    except BaseException:
        cuda.close()
        raise
    runner.description = {
        "runtime": trt.__name__,
        "version": trt.__version__,
        "precision": bundle["tensorrt"]["precision"],
        "device": cuda.device,
        "engine": how,
        "plan_bytes": len(plan),
        "warning": check_version(trt, bundle["tensorrt"]["versions"]),
        "dla": record["dla"],
    }
    return runner
