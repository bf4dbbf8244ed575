"""Targets ``linux-arm64`` (Raspberry Pi, i.MX 8, other 64-bit ARM boards) and ``linux-x86-64``."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from lesiontk.deploy.target import LITERT, ONNX, BundleTarget, Contents, Runtime
from lesiontk.deploy.web.page import write_board_page
from lesiontk.records import EngineSpec


class Linux(BundleTarget):
    """LiteRT or ONNX Runtime under Python on the CPU."""

    engines: ClassVar[tuple[str, ...]] = (
        "tflite:int8",
        "onnx:int8",
        "tflite:mixed",
        "onnx:mixed",
        "tflite:int16x8",
        "tflite:dynamic_int8",
        "tflite:float16",
        "tflite:float32",
        "onnx:float16",
        "onnx:float32",
    )

    image = "python:3.11-slim-bookworm"

    def runtimes(self, spec: EngineSpec) -> tuple[Runtime, ...]:
        return (LITERT,) if spec.backend == "tflite" else (ONNX,)

    def add_files(self, folder: Path, engine: Path, spec: EngineSpec) -> Contents:
        return Contents(
            "On the board, in this folder:\n\n    python3 -m venv .venv && . .venv/bin/activate\n"
            "    pip install --require-hashes -r requirements.txt\n\n"
            f"{INT8[self.name]} `--threads` takes more cores."
        )

    def seal(self, folder: Path) -> None:
        write_board_page(folder)


INT8 = {
    "linux-arm64": "int8 is fast on processors with the dot-product instructions (`asimddp` in "
    "/proc/cpuinfo: Cortex-A55, A75 and later); older ones such as the Cortex-A72 of the Raspberry "
    "Pi 4 run it more slowly, with the same outputs.",
    "linux-x86-64": "int8 is fast on processors with VNNI (`avx512_vnni` or `avx_vnni` in "
    "/proc/cpuinfo); others run it more slowly, with the same outputs.",
}
"""What a board's processor needs for fast int8."""
