"""What a compression changes on a device: size as it is sent, latency as it is measured."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

from lesiontk.backends import BACKENDS
from lesiontk.backends.keras_backend import read_spec
from lesiontk.bench.measure import measure_engines
from lesiontk.data.images import ImageSet
from lesiontk.recipe import BenchRule
from lesiontk.stage import Context

TARGET = ("tflite", "float32")
TIMED_IMAGES = 16


def deflated_bytes(path: Path) -> int:
    """Return the size of a file as zip would store it."""
    return len(zlib.compress(path.read_bytes(), 6))


def measure_effect(before: Path, after: Path, images: ImageSet, context: Context) -> dict[str, Any]:
    """Return size, deflated size and latency of two ``.keras`` files as float32 TFLite engines.

    Latency is that of one image on one thread, in turns; the median of ``n`` rounds, in ms.
    """
    backend = BACKENDS.get(TARGET[0])()
    files = {}
    for name, source in (("before", before), ("after", after)):
        out = context.scratch / f"effect-{name}"
        out.mkdir(exist_ok=True)
        record = backend.convert(source, TARGET[1], read_spec(source), None, out)
        files[name] = out / record.file
    rule = BenchRule()
    pixels = images.pixels[images.draw_stratified("validation", TIMED_IMAGES, seed=0)]
    measured = measure_engines(files, pixels, rule, context.progress)
    return {
        "engine": ":".join(TARGET),
        "n": rule.rounds,
        **{
            name: {
                "size_bytes": path.stat().st_size,
                "deflated_bytes": deflated_bytes(path),
                "median_ms": measured[name].latency_json()["median"],
            }
            for name, path in files.items()
        },
    }
