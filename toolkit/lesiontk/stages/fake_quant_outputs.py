"""What a model says with int8's rounding in it, kept for the engines that are to say the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lesiontk.backends.backend import QuantizationPlan
from lesiontk.backends.reference_outputs import run_engine
from lesiontk.data.images import ImageSet
from lesiontk.records import Artefact

ROUNDED = "rounded_answers.npz"
"""The rows of the training images on which ranges began, and the rounded model's answers."""

BACKENDS_OF = {"tflite": ("tflite", "onnx"), "tensorrt": ("tensorrt",)}
"""Scheme of quantization-aware training -> the back ends that round so."""
REQUANTIZED_REASON = "otherwise_than_trained"
"""The fact of an engine that says why it does not round as its model has learned."""

OutputPair = tuple[NDArray[np.float32], NDArray[np.float32]]


def write_rounded(rows: NDArray[np.int64], outputs: NDArray[np.float32], folder: Path) -> None:
    """Keep a rounded model's answers, float32 [N, C], to these rows of the images."""
    np.savez(folder / ROUNDED, rows=rows, outputs=outputs)


def explain_other_rounding(scheme: str, backend: str, plan: QuantizationPlan) -> str | None:
    """Return why an int8 engine rounds otherwise than its model has learned; None if it does not.

    It takes the learned ranges all the same.
    """
    if backend not in BACKENDS_OF[scheme]:
        return f"trained for the rounding of {scheme}, not of {backend}"
    return "trained for weights of 8 bits, not of 7" if plan.reduce_range else None


def run_fake_quantized(model: Artefact, engine: Path, images: ImageSet, threads: int) -> OutputPair:
    """Return what the rounded model said of its images, and what the engine says of them."""
    with np.load(model.file(ROUNDED)) as kept:
        rows, outputs = kept["rows"], kept["outputs"]
    return outputs, run_engine(engine, images.pixels[rows], threads).outputs
