"""The GPUs of this machine and their driver, found without loading a framework."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

QUERY = ("name", "driver_version", "memory.total", "compute_cap")
SECONDS = 20
JETSON = Path("/proc/device-tree/model")
DRIVER = Path("/proc/driver/nvidia/version")


def list_accelerators() -> list[dict[str, str]]:
    """Return name, driver, memory and compute capability of each NVIDIA GPU; no serial number."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return [{"name": name} for name in _read_jetson()]
    command = [tool, f"--query-gpu={','.join(QUERY)}", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return []  # installed without a GPU or driver; `explain_gpu` states which
    found = []
    for line in done.stdout.strip().splitlines():
        values = [value.strip() for value in line.split(",")]
        if len(values) == len(QUERY):
            found.append(dict(zip(("name", "driver", "memory", "compute"), values, strict=True)))
    return found


def explain_gpu(accelerators: Sequence[Mapping[str, str]]) -> str:
    """Return in one sentence whether a GPU can be used here, and what is missing if not."""
    if accelerators:
        parts = []
        for gpu in accelerators:
            more = [f"{what} {value}" for what, value in gpu.items() if what != "name"]
            parts.append(", ".join([gpu["name"], *more]))
        return f"GPU: {'; '.join(parts)}."
    if shutil.which("nvidia-smi") is not None or DRIVER.exists():
        return "An NVIDIA driver is installed but finds no GPU: only CPU back ends run here."
    if has_cuda_library():
        return "libcuda is installed but nvidia-smi lists no GPU: only CPU back ends run here."
    return "No NVIDIA driver and no GPU was found: only CPU back ends run here."


def has_cuda_library() -> bool:
    """Return whether the driver's libcuda.so.1, which every CUDA program needs, can be loaded."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


def _read_jetson() -> list[str]:
    if not JETSON.is_file():
        return []
    model = JETSON.read_bytes().decode(errors="replace").strip("\0\n ")
    return [model] if "jetson" in model.lower() else []
