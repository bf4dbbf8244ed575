"""Timing engine files that stand outside a workspace."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lesiontk.backends import open_engine
from lesiontk.bench.findings import list_findings
from lesiontk.bench.gated import figures_of
from lesiontk.bench.machine import describe_machine
from lesiontk.bench.measure import measure_engines
from lesiontk.evaluate.gate import Judged, judge_engines
from lesiontk.progress import Progress
from lesiontk.recipe import Recipe

NO_LABELS = (
    "a file is timed without labels; `lesiontk evaluate FILE --images DIR --labels CSV --gate …` "
    "judges its answers"
)


def benchmark_files(
    files: Mapping[str, Path], recipe: Recipe, progress: Progress
) -> dict[str, Any]:
    """Return a benchmark document without accuracy, and what the recipe's gates find of that.

    Gates on accuracy are not shown, for no image has a label here. The pixels are noise: the
    kernels' time does not depend on values.
    """
    rule = recipe.bench
    specs = {}
    for name, path in files.items():
        with open_engine(path) as engine:
            specs[name] = engine.spec
    largest = max(spec.input_shape for spec in specs.values())
    pixels = np.random.default_rng(0).integers(0, 256, (8, *largest), np.uint8)
    measured = measure_engines(files, pixels, rule, progress)
    document: dict[str, Any] = {
        "threads": rule.threads,
        "batch": 1,
        "rows": [
            {
                "engine": name,
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
                "n": None,
                "metrics": None,
                "versus_parent": None,
            }
            for name, result in measured.items()
        ],
        "gates": list(recipe.gate),
        "gate": [
            verdict.to_json()
            for verdict in judge_engines(
                [
                    Judged(name, device=figures_of(result), why_not=NO_LABELS)
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
