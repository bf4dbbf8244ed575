"""What this board is, without its name in the network."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path

INT8_FEATURES = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm")
BOARD = Path("/proc/device-tree/model")  # on ARM boards and Jetsons


@dataclass(frozen=True)
class Machine:
    """Processor, cores, memory in bytes, system, and what it has for int8 kernels."""

    processor: str
    architecture: str
    cores: int
    memory_bytes: int | None
    system: str
    python: str
    int8_features: tuple[str, ...] = ()


def describe_machine(cpuinfo: Path = Path("/proc/cpuinfo"), board: Path = BOARD) -> Machine:
    """Return what this machine is; the processor is a board's own name where it has one."""
    values: dict[str, str] = {}
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(errors="replace").splitlines():
            key, _, value = line.partition(":")
            values.setdefault(key.strip(), value.strip())
    model = board.read_text(errors="replace").strip("\0 \n") if board.is_file() else ""
    flags = set((values.get("flags") or values.get("Features") or "").split())
    return Machine(
        processor=model
        or values.get("model name")
        or values.get("Model")
        or platform.processor()
        or platform.machine(),
        architecture=platform.machine(),
        cores=os.cpu_count() or 1,
        memory_bytes=_memory(),
        system=f"{platform.system()} {platform.release().split('-')[0]}",
        python=platform.python_version(),
        int8_features=tuple(name for name in INT8_FEATURES if name in flags),
    )


def peak_memory_bytes(status: Path = Path("/proc/self/status")) -> int | None:
    """Return the most memory that this process has held, or None where Linux does not say."""
    if status.is_file():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return 1024 * int(line.split()[1])
    return None


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None
