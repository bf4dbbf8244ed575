"""The footprint of a model: file size, deflated size and measured latency."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from lesiontk.backends import BACKENDS, parse_target
from lesiontk.backends.backend import QuantizationPlan
from lesiontk.backends.keras.backend import read_spec
from lesiontk.bench.measure import deflated_bytes, time_engines
from lesiontk.data.images import ImageSet
from lesiontk.recipe import BenchRule
from lesiontk.records import EngineFootprint, EngineSpec, Footprint
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


def measure_footprint(before: Path, after: Path, images: ImageSet, context: Context) -> Footprint:
    """Return what two ``.keras`` files cost as float32 TFLite engines."""
    spec = read_spec(before)
    scratch = context.scratch
    return compare_engines(
        TARGET,
        make_engine(before, spec, TARGET, images, scratch / "engine-before"),
        make_engine(after, spec, TARGET, images, scratch / "engine-after"),
        images,
        context,
    )


def compare_engines(
    target: str, before: Path, after: Path, images: ImageSet, context: Context
) -> Footprint:
    """Return what two engine files of a target cost, timed in turns."""
    files = {"before": before, "after": after}
    pixels = images.pixels[images.draw_stratified("validation", TIMED_IMAGES, seed=0)]
    timed = time_engines(files, pixels, BenchRule(), context.progress)
    n = min(timing.latency.n for timing in timed.values())
    first, second = (weigh_engine(files[x], timed[x].latency.median) for x in files)
    return Footprint(target, n, first, second)


def weigh_engine(path: Path, median_ms: float) -> EngineFootprint:
    """Return an engine file's sizes, with its latency."""
    return EngineFootprint(path.stat().st_size, deflated_bytes(path), median_ms)
