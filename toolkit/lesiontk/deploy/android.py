"""Target ``android``: a phone or tablet with LiteRT in an app."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np

from lesiontk.deploy.target import LITERT, BundleTarget, Contents, Runtime
from lesiontk.records import EngineSpec

LABELS = "labels.txt"


class Android(BundleTarget):
    """The LiteRT engine with labels and golden outputs as plain bytes, for Java."""

    engines: ClassVar[tuple[str, ...]] = (
        "tflite:int8",
        "tflite:mixed",
        "tflite:dynamic_int8",
        "tflite:float16",
        "tflite:float32",
        "tflite:int16x8",
    )

    def runtimes(self, spec: EngineSpec) -> tuple[Runtime, ...]:
        return (LITERT,)

    def add_files(self, folder: Path, engine: Path, spec: EngineSpec) -> Contents:
        (folder / LABELS).write_text("".join(f"{label}\n" for label in spec.labels))
        with np.load(folder / "golden.npz") as golden:
            images, probabilities = golden["images"], golden["probabilities"]
        (folder / "golden_images.u8").write_bytes(images.tobytes())
        (folder / "golden_probabilities.f32").write_bytes(probabilities.astype("<f4").tobytes())
        shape = list(images.shape)
        size, classes = spec.preprocessing.image_size, len(spec.labels)
        return Contents(
            f"In the app: add `com.google.ai.edge.litert:litert` to Gradle, copy `{engine.name}` "
            f"and `{LABELS}` to `src/main/assets`, and keep the engine uncompressed "
            '(`androidResources { noCompress += "tflite" }`). The engine takes one direct '
            f"ByteBuffer of {size} x {size} x 3 bytes, RGB, rows from the top; it returns "
            f"{classes} floats in the order of `{LABELS}`. Normalization is inside the engine.\n\n"
            "Crop and resize as `crop.py` does: largest centred square, then an antialiased "
            "bilinear reduction. `Bitmap.createScaledBitmap` does not antialias and gives other "
            "pixels. Verify it in a test of the app: prepare the images in `golden/` and compare "
            "with the hashes in `bundle.json`; run the engine on "
            f"`golden_images.u8` (bytes, {shape}) and compare with `golden_probabilities.f32` "
            f"(little-endian floats, [{len(images)}, {classes}]).\n\n"
            "On a computer, or on the phone itself in Termux, `run.py` tests the same folder:\n\n"
            "    pip install -r requirements.txt",
            bundle={"labels_file": LABELS, "golden_shape": shape},
        )
