"""Which TensorRT is installed, and whether it can run: asked without importing what is heavy."""

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
"""Module -> distribution; the first that is there is used."""
BINDINGS = ("pycuda", "cuda.bindings", "cuda.cudart")
"""Modules of pycuda and cuda-python; ``cuda`` alone is a namespace that other packages share."""


@dataclass(frozen=True, slots=True)
class Installation:
    """A TensorRT that can be imported: its module's name and its version."""

    module: str
    version: str

    @property
    def builds_without_gpu(self) -> bool:
        """Whether it parses and builds on a machine that has neither driver nor GPU."""
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
    """Return the module; `MissingRequirementError` says how to get it."""
    try:
        return on_device.import_tensorrt()
    except on_device.MissingRequirementError as error:
        raise MissingRequirementError(
            f"{error} `pip install lesiontk[tensorrt-rtx]` brings one that parses and builds "
            "without a GPU."
        ) from error


def explain_no_gpu() -> str:
    """Return all that engines lack to run in TensorRT here; an empty string where they can."""
    lacking = [
        "" if find_installation() else "neither tensorrt nor tensorrt-rtx is installed",
        _explain_no_driver(),
        "" if any(map(_is_there, BINDINGS)) else "neither pycuda nor cuda-python is installed",
    ]
    return ", ".join(filter(None, lacking))


def explain_no_builder() -> str:
    """Return why no engine is built here; an empty string where `build_engine` does it."""
    installed = find_installation()
    if installed is None:
        return "neither tensorrt nor tensorrt-rtx is installed; the latter needs no GPU for it"
    if installed.builds_without_gpu:
        return ""
    lacking = _explain_no_driver()
    return f"{installed} needs a GPU for it, and {lacking}" if lacking else ""


def _is_there(module: str) -> bool:
    """Whether a module can be found; of those above it, none need be there."""
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


@cache
def _explain_no_driver() -> str:
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return "there is no NVIDIA driver (libcuda.so.1 does not load)"
    count = ctypes.c_int(0)
    code = driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count))
    if code:
        return f"the NVIDIA driver does not start (CUDA error {code})"
    return "" if count.value else "the NVIDIA driver finds no GPU"
