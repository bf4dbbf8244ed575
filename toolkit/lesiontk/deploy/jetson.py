"""Targets ``jetson-…``: the graph from which the device builds its TensorRT engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar

from lesiontk.backends.tensorrt import on_device
from lesiontk.backends.tensorrt.plan_cache import PlanSettings
from lesiontk.backends.tensorrt.targets import find_target, write_trtexec
from lesiontk.deploy.target import ONNX, TENSORRT, BundleTarget, Contents, Runtime
from lesiontk.deploy.web.page import write_board_page
from lesiontk.records import EngineSpec

IMAGES = {
    "jetpack5": "nvcr.io/nvidia/l4t-jetpack:r35.4.1",
    "jetpack6": "nvcr.io/nvidia/l4t-jetpack:r36.4.0",
    "jetpack7": "nvcr.io/nvidia/tensorrt:25.08-py3",
}
"""Base images with CUDA and TensorRT by JetPack, from NVIDIA's catalogue; none was run here."""


class Jetson(BundleTarget):
    """TensorRT on the device; optionally ONNX Runtime, to test the folder elsewhere."""

    engines: ClassVar[tuple[str, ...]] = (
        "tensorrt:int8",
        "tensorrt:mixed",
        "tensorrt:float16",
        "tensorrt:float32",
    )
    alternatives: ClassVar[Mapping[str, str]] = MappingProxyType(
        {"tensorrt:int8": "tensorrt:float16", "tensorrt:mixed": "tensorrt:float16"}
    )

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.device = find_target(name)
        self.python = self.device.python
        self.image = IMAGES[name.rpartition("-")[2]]

    def runtimes(self, spec: EngineSpec) -> tuple[Runtime, ...]:
        return (TENSORRT, ONNX)

    def add_files(self, folder: Path, engine: Path, spec: EngineSpec) -> Contents:
        from lesiontk.backends.tensorrt.check import require_model

        device = self.device
        report = require_model(engine, device.tensorrt)
        trtexec = {
            version: write_trtexec(version, spec.precision, engine.name, spec.input_shape)
            for version in device.tensorrt
        }
        settings = PlanSettings(
            spec.precision, list(device.tensorrt), [1, 1, 1], on_device.WORKSPACE_BYTES
        )
        lines = "\n".join(f"# TensorRT {version}\n{line}" for version, line in trtexec.items())
        return Contents(
            f"For {device.device}, JetPack {device.jetpack}. An engine runs only with the "
            "TensorRT and the GPU that built it, so it is built on the device. The graph was "
            f"checked for TensorRT {', '.join(device.tensorrt)}; it was not run on a "
            f"{device.device}. On the "
            "device, in this folder:\n\n"
            "    sudo apt install python3-libnvinfer   # part of JetPack\n"
            "    pip3 install -r requirements.txt      # or cuda-python instead of pycuda\n\n"
            "The first call builds the engine in the folder `plans`, which takes minutes. It is "
            "built again for another GPU, TensorRT version or ONNX file, and if the stored one was "
            "modified. Build and self-test need NumPy, "
            "TensorRT and pycuda or cuda-python; reading image files needs Pillow. Latency is "
            "timed with CUDA events; fix the clocks before: `sudo nvpmodel -m 0 && sudo "
            "jetson_clocks`. On a machine without TensorRT, `--runtime onnx` uses ONNX "
            "Runtime (`pip install onnxruntime`).\n\n"
            "NVIDIA's own tool builds and times the same graph (input `image`, output "
            f"`probabilities`):\n\n```\n{lines}\n```",
            bundle={"tensorrt": asdict(settings)},
            facts={"check": report.to_document(), "trtexec": trtexec},
        )

    def seal(self, folder: Path) -> None:
        write_board_page(folder)
