"""The installed TensorRT and whether it can run, without importing heavy modules."""

from __future__ import annotations

import ctypes
import importlib.util
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from typing import Any

from lesiontk.backends.tensorrt import on_device
from lesiontk.errors import MissingRequirementError

MODULES = {"tensorrt": "tensorrt", "tensorrt_rtx": "tensorrt-rtx"}
"""Module -> distribution; the first installed one is used."""
BINDINGS = ("pycuda", "cuda.bindings", "cuda.cudart")
"""Modules of pycuda and cuda-python; ``cuda`` alone is a namespace that other packages share."""


@dataclass(frozen=True, slots=True)
class Installation:
    """A TensorRT that can be imported: its module's name and its version."""

    module: str
    version: str

    @property
    def builds_without_gpu(self) -> bool:
        """Whether it parses and builds on a machine without driver and GPU."""
        return self.module == "tensorrt_rtx"

    def __str__(self) -> str:
        return f"{MODULES[self.module]} {self.version}"


def find_installation() -> Installation | None:
    """Return the TensorRT that `import_tensorrt` imports, or None."""
    for module, distribution in MODULES.items():
        if _is_there(module):
            try:
                version = metadata.version(distribution)
            except metadata.PackageNotFoundError:  # a Jetson has it from a Debian package
                version = "of unknown version"
            return Installation(module, version)
    return None


def import_tensorrt() -> Any:
    """Return the module. Raises `MissingRequirementError` with how to install it."""
    try:
        return on_device.import_tensorrt()
    except on_device.MissingRequirementError as error:
        raise MissingRequirementError(
            f"{error} `pip install lesiontk[tensorrt-rtx]` installs one that parses and builds "
            "without a GPU."
        ) from error


def explain_no_gpu() -> str:
    """Return the missing requirement of engines in TensorRT, or an empty string."""
    missing = [
        "" if find_installation() else "neither tensorrt nor tensorrt-rtx is installed",
        _explain_no_driver(),
        "" if any(map(_is_there, BINDINGS)) else "neither pycuda nor cuda-python is installed",
    ]
    return ", ".join(filter(None, missing))


def explain_no_builder() -> str:
    """Return why no engine can be built here, or an empty string."""
    installed = find_installation()
    if installed is None:
        return "neither tensorrt nor tensorrt-rtx is installed; the latter builds without a GPU"
    if installed.builds_without_gpu:
        return ""
    missing = _explain_no_driver()
    return f"{installed} needs a GPU to build, but {missing}" if missing else ""


def _is_there(module: str) -> bool:
    """Return whether a module can be found; of those above it, none need be there."""
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


@cache
def _explain_no_driver() -> str:
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return "no NVIDIA driver is installed (libcuda.so.1 does not load)"
    count = ctypes.c_int(0)
    code = driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count))
    if code:
        return f"the NVIDIA driver does not start (CUDA error {code})"
    return "" if count.value else "the NVIDIA driver finds no GPU"
