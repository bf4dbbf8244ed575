"""Outputs of the fake-quantized model, the reference of its int8 engines."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lesiontk.backends.backend import QuantizationPlan
from lesiontk.backends.reference_outputs import run_engine
from lesiontk.data.images import ImageSet
from lesiontk.records import Artefact

ROUNDED = "rounded_answers.npz"
"""Files: the rows of the training images for the initial ranges, and the model's outputs."""

BACKENDS_OF = {"tflite": ("tflite", "onnx"), "tensorrt": ("tensorrt",)}
"""Scheme of quantization-aware training -> the back ends with its rounding."""
"""The fact of an engine with the reason why its rounding differs from that in training."""

OutputPair = tuple[NDArray[np.float32], NDArray[np.float32]]


def write_fake_quant_outputs(
    rows: NDArray[np.int64], outputs: NDArray[np.float32], folder: Path
) -> None:
    """Store a fake-quantized model's outputs, float32 [N, C], for these rows of the images."""
    np.savez(folder / ROUNDED, rows=rows, outputs=outputs)


def explain_other_rounding(scheme: str, backend: str, plan: QuantizationPlan) -> str | None:
    """Return why an int8 engine's rounding differs from that in training; None if it does not.

    It uses the learned ranges in any case.
    """
    if backend not in BACKENDS_OF[scheme]:
        return f"trained for the rounding of {scheme}, not of {backend}"
    return "trained for weights of 8 bits, not of 7" if plan.reduce_range else None


def run_fake_quantized(model: Artefact, engine: Path, images: ImageSet, threads: int) -> OutputPair:
    """Return the stored outputs of the fake-quantized model, and the engine's for the same
    images."""
    with np.load(model.file(ROUNDED)) as kept:
        rows, outputs = kept["rows"], kept["outputs"]
    return outputs, run_engine(engine, images.pixels[rows], threads).outputs
