"""Timing engine files that stand outside a workspace."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lesiontk.backends import open_any
from lesiontk.backends.foreign import ForeignDescription
from lesiontk.bench.findings import list_findings
from lesiontk.bench.measure import measure_engines
from lesiontk.errors import UsageError
from lesiontk.evaluate.gate import Judged, judge_engines
from lesiontk.progress import Progress
from lesiontk.recipe import Recipe
from lesiontk.system.machine import describe_machine

NO_LABELS = (
    "a file is timed without labels; `lesiontk evaluate FILE --images DIR --labels CSV --gate …` "
    "judges its answers"
)


def benchmark_files(
    files: Mapping[str, Path],
    recipe: Recipe,
    progress: Progress,
    foreign: ForeignDescription | None = None,
    scores: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """Return a benchmark document, and what the recipe's gates find.

    `foreign` describes the files that carry no description. `scores` are the evaluations of the
    files on labelled images; without them gates on accuracy are not shown. The pixels are noise:
    the kernels' time does not depend on values.
    """
    rule = recipe.bench
    specs = {}
    for name, path in files.items():
        with open_any(path, foreign) as engine:
            specs[name] = engine.spec
    largest = max(spec.input_shape for spec in specs.values())
    pixels = np.random.default_rng(0).integers(0, 256, (8, *largest), np.uint8)
    measured = measure_engines(files, pixels, rule, progress, foreign)
    document: dict[str, Any] = {
        **(_shared(scores) if scores else {}),
        "threads": rule.threads,
        "batch": 1,
        "rows": [
            {
                "engine": name,
                "target": name,  # two files may have the same back end and precision
                "backend": specs[name].backend,
                "precision": specs[name].precision,
                "image_size": result.image_size,
                "threads": rule.threads,
                "latency_ms": result.latency_json(),
                "size_bytes": result.size_bytes,
                "deflated_bytes": result.deflated_bytes,
                "peak_memory_bytes": result.peak_memory_bytes,
                "execution": list(result.execution),
                "emulated_by": result.emulated_by,
                **(_scored(scores[name]) if scores else {"n": None, "metrics": None}),
                "versus_parent": None,
            }
            for name, result in measured.items()
        ],
        "gates": list(recipe.gate),
        "gate": [
            verdict.to_json()
            for verdict in judge_engines(
                [
                    Judged(name, device=result.device_figures(), why_not=NO_LABELS)
                    for name, result in measured.items()
                ],
                recipe.gate,
                recipe.evaluate,
            )
        ],
        "unresolved": recipe.unresolved,
        "machine": describe_machine(),
    }
    return {**document, "findings": list_findings(document)}


def _scored(evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a row takes of an evaluation."""
    names = ("n", "lesions", "metrics", "confusion", "operating_point", "temperature")
    return {name: evaluation[name] for name in names}


def _shared(scores: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return what all evaluations have in common; `UsageError` where they differ."""
    first = next(iter(scores.values()))
    for name, evaluation in scores.items():
        if evaluation["labels"] != first["labels"]:
            raise UsageError(
                f"{name} has the labels {', '.join(evaluation['labels'])}; expected those of the "
                f"others, {', '.join(first['labels'])}. Bench them one after the other."
            )
    return {name: first[name] for name in ("labels", "critical", "confidence")}
