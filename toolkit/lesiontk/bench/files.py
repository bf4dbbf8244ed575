"""Timing of engine files outside a workspace."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from lesiontk.backends import open_any
from lesiontk.backends.foreign import ForeignDescription
from lesiontk.bench.benchmark import Benchmark
from lesiontk.bench.device import DeviceBench, index_devices
from lesiontk.bench.findings import list_findings
from lesiontk.bench.measure import measure_engines, measure_peaks
from lesiontk.errors import UsageError
from lesiontk.evaluate.evaluation import EngineEvaluation
from lesiontk.evaluate.gate import GateInput, judge_engines
from lesiontk.evaluate.verdict import Unresolved
from lesiontk.progress import Progress
from lesiontk.recipe import Recipe
from lesiontk.system.conditions import read_conditions
from lesiontk.system.energy import open_energy_counter
from lesiontk.system.machine import describe_machine

NO_LABELS = (
    "files are timed without labels; `lesiontk evaluate FILE --images DIR --labels CSV --gate …` "
    "evaluates their outputs"
)


def benchmark_files(
    files: Mapping[str, Path],
    recipe: Recipe,
    progress: Progress,
    foreign: ForeignDescription | None = None,
    scores: Mapping[str, EngineEvaluation] | None = None,
    devices: Sequence[DeviceBench] = (),
) -> Benchmark:
    """Return a benchmark of engine files, with the verdicts of the recipe's gates.

    `foreign` describes the files without a description. `scores` are the evaluations of the
    files on labelled images; without them gates on accuracy are not shown. `devices` are
    measurements of the files elsewhere. The pixels are noise: the kernels' time does not depend on
    values.
    """
    rule = recipe.bench
    elsewhere = index_devices(devices)
    specs = {}
    for name, path in files.items():
        with open_any(path, foreign) as engine:
            specs[name] = engine.spec
    largest = max(spec.input_shape for spec in specs.values())
    pixels = np.random.default_rng(0).integers(0, 256, (8, *largest), np.uint8)
    before = read_conditions()
    measured = measure_engines(files, pixels, rule, progress, foreign)
    benchmark = Benchmark(
        threads=rule.threads,
        rows=tuple(
            result.to_row(
                engine=name,
                target=name,  # two files may have the same back end and precision
                backend=specs[name].backend,
                precision=specs[name].precision,
                threads=rule.threads,
            )
            for name, result in measured.items()
        ),
        devices=tuple(device.to_row() for device in devices),
        gates=recipe.gate,
        gate=judge_engines(
            [
                GateInput(
                    name,
                    device=elsewhere[name].figures()
                    if name in elsewhere
                    else result.device_figures(),
                    not_measured=NO_LABELS,
                )
                for name, result in measured.items()
            ],
            recipe.gate,
            recipe.evaluate,
        ),
        unresolved=Unresolved(recipe.unresolved),
        machine=describe_machine(),
        conditions=(before, read_conditions()),
        peaks=measure_peaks(rule.threads),
        energy_lacks=open_energy_counter().lacks,
    )
    if scores:
        benchmark = _add_scores(benchmark, scores)
    return replace(benchmark, findings=tuple(list_findings(benchmark)))


def _add_scores(benchmark: Benchmark, scores: Mapping[str, EngineEvaluation]) -> Benchmark:
    """Return the benchmark with the evaluations. Raises `UsageError` if their labels differ."""
    first = next(iter(scores.values()))
    for name, evaluation in scores.items():
        if evaluation.labels != first.labels:
            raise UsageError(
                f"{name} has the labels {', '.join(evaluation.labels)}; expected those of the "
                f"others, {', '.join(first.labels)}. Run a benchmark for each."
            )
    return replace(
        benchmark,
        labels=first.labels,
        critical=first.critical,
        confidence=first.confidence,
        rows=tuple(row.with_scores(scores[row.engine]) for row in benchmark.rows),
    )
