"""A description of the machine that a figure was measured on, without its name."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lesiontk.document import Record
from lesiontk.system.accelerators import list_accelerators

INT8_FEATURES = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm")


@dataclass(frozen=True, slots=True)
class Machine(Record):
    """Processor, memory in bytes, system and what it has for int8 kernels; not its name."""

    processor: str
    architecture: str
    cores: int | None
    memory_bytes: int | None
    system: str
    python: str
    int8_features: tuple[str, ...] = ()
    accelerators: tuple[Mapping[str, str], ...] = ()


def describe_machine() -> Machine:
    """Return what this machine is."""
    model, flags = "", set()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() in ("model name", "Model") and not model:
                model = value.strip()
            if key.strip() in ("flags", "Features"):
                flags |= set(value.split())
    return Machine(
        processor=model or platform.processor() or platform.machine(),
        architecture=platform.machine(),
        cores=os.cpu_count(),
        memory_bytes=_memory(),
        system=f"{platform.system()} {platform.release().split('-')[0]}",
        python=platform.python_version(),
        int8_features=tuple(name for name in INT8_FEATURES if name in flags),
        accelerators=tuple(list_accelerators()),
    )


def explain_int8(features: Sequence[str], architecture: str) -> str:
    """Return one sentence on what the CPU's features mean for int8 engines."""
    if any(name in features for name in ("avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm")):
        return "This CPU multiplies int8 directly (VNNI or dot product): int8 is fast and exact."
    if architecture in ("x86_64", "AMD64"):
        return (
            "This CPU lacks VNNI: int8 gains little speed. ONNX Runtime's fast int8 kernels would "
            "saturate in 16 bits and lose accuracy here, so slower, exact ones are used; "
            "`lesiontk quantize --int8 --reduce-range` uses 7-bit weights, with which "
            "the fast kernels are exact."
        )
    return "This CPU lacks dot-product instructions: int8 gains less speed; its results are exact."


def explain_precision(precision: str, features: Sequence[str], architecture: str) -> str:
    """Return one sentence on how this CPU runs a precision, or an empty string."""
    if precision.endswith("int8"):
        return explain_int8(features, architecture)
    if precision.startswith("int16"):
        return "int16 activations run on few optimized CPU kernels: expect accuracy, not speed."
    if precision.startswith("float16"):
        return "CPUs compute in float32: half the size on disk, not faster; GPUs gain speed."
    return ""


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None
