"""The footprint of a model: file size, deflated size and measured latency."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from lesiontk.backends import BACKENDS, parse_target
from lesiontk.backends.backend import QuantizationPlan
from lesiontk.backends.keras.backend import read_spec
from lesiontk.bench.measure import deflated_bytes, time_engines
from lesiontk.data.images import ImageSet
from lesiontk.recipe import BenchRule
from lesiontk.records import EngineSpec
from lesiontk.stage import Context

TARGET = "tflite:float32"
TIMED_IMAGES = 16


def make_engine(source: Path, spec: EngineSpec, target: str, images: ImageSet, out: Path) -> Path:
    """Return the engine of a ``.keras`` file, for size and latency only.

    It is calibrated on a few training images and not verified. The folder `out` is created.
    """
    out.mkdir(exist_ok=True)
    name, precision = parse_target(target)
    backend = BACKENDS.get(name)()
    info = backend.info.precisions[precision]
    if info.derived_from != "model":
        source = make_engine(source, spec, info.derived_from, images, out)
    plan = None
    if info.calibrated:
        rows = images.draw_stratified("train", TIMED_IMAGES, seed=0)
        plan = QuantizationPlan(images.pixels[rows], "min_max", correct_bias=False)
    described = replace(spec, backend=name, precision=precision)
    return out / backend.convert(source, precision, described, plan, out).file


def time_files(engines: Mapping[str, Path], images: ImageSet, context: Context) -> dict[str, float]:
    """Return name -> median latency in ms of one image on one thread, of engines timed in turns."""
    pixels = images.pixels[images.draw_stratified("validation", TIMED_IMAGES, seed=0)]
    timed = time_engines(engines, pixels, BenchRule(), context.progress)
    return {name: float(np.median(timing.samples_ms)) for name, timing in timed.items()}


def measure_footprint(
    before: Path, after: Path, images: ImageSet, context: Context
) -> dict[str, Any]:
    """Return size, deflated size and latency of two ``.keras`` files as float32 TFLite engines.

    Latency is that of one image on one thread, in turns; the median of ``n`` rounds, in ms.
    """
    spec = read_spec(before)
    engines = {
        name: make_engine(source, spec, TARGET, images, context.scratch / f"engine-{name}")
        for name, source in {"before": before, "after": after}.items()
    }
    medians = time_files(engines, images, context)
    return {
        "engine": TARGET,
        "n": BenchRule().rounds,
        **{
            name: {
                "size_bytes": path.stat().st_size,
                "deflated_bytes": deflated_bytes(path),
                "median_ms": round(medians[name], 4),
            }
            for name, path in engines.items()
        },
    }
