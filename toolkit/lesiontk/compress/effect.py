"""What a compression changes on a device: size as it is sent, latency as it is measured."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from lesiontk.backends import BACKENDS, parse_target
from lesiontk.backends.backend import QuantizationPlan
from lesiontk.backends.keras_backend import read_spec
from lesiontk.bench.measure import Measurement, measure_engines
from lesiontk.data.images import ImageSet
from lesiontk.recipe import BenchRule
from lesiontk.records import EngineSpec
from lesiontk.stage import Context

TARGET = "tflite:float32"
TIMED_IMAGES = 16


def deflated_bytes(path: Path) -> int:
    """Return the size of a file as zip would store it."""
    return len(zlib.compress(path.read_bytes(), 6))


def make_engine(source: Path, spec: EngineSpec, target: str, images: ImageSet, out: Path) -> Path:
    """Return the engine of a ``.keras`` file, to be weighed and timed and not to be used.

    It is calibrated on a few training images, without a verification.
    """
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


def measure_models(
    models: Mapping[str, Path],
    spec: EngineSpec,
    target: str,
    images: ImageSet,
    folder: Path,
    context: Context,
) -> dict[str, tuple[Path, Measurement]]:
    """Return name -> engine file and measurement of ``.keras`` files, timed in turns."""
    files = {}
    for name, source in models.items():
        out = folder / f"engine-{name}"
        out.mkdir(exist_ok=True)
        files[name] = make_engine(source, spec, target, images, out)
    pixels = images.pixels[images.draw_stratified("validation", TIMED_IMAGES, seed=0)]
    measured = measure_engines(files, pixels, BenchRule(), context.progress)
    return {name: (files[name], measured[name]) for name in models}


def measure_effect(before: Path, after: Path, images: ImageSet, context: Context) -> dict[str, Any]:
    """Return size, deflated size and latency of two ``.keras`` files as float32 TFLite engines.

    Latency is that of one image on one thread, in turns; the median of ``n`` rounds, in ms.
    """
    models = {"before": before, "after": after}
    found = measure_models(models, read_spec(before), TARGET, images, context.scratch, context)
    return {
        "engine": TARGET,
        "n": BenchRule().rounds,
        **{
            name: {
                "size_bytes": path.stat().st_size,
                "deflated_bytes": deflated_bytes(path),
                "median_ms": measured.latency_json()["median"],
            }
            for name, (path, measured) in found.items()
        },
    }
