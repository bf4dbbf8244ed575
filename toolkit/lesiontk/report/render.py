"""From what a run found out to one HTML file that needs nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class ReportData:
    """Everything the report shows, as plain documents.

    `benchmark` is the document of the stage bench, `metrics` and `engines` map each target
    (``tflite:int8``) to its evaluation and its manifest's facts, `curves` has a row an epoch.
    """

    name: str
    description: str
    benchmark: Mapping[str, Any]
    metrics: Mapping[str, Mapping[str, Any]]
    engines: Mapping[str, Mapping[str, Any]]
    curves: Sequence[Mapping[str, float]]
    model: Mapping[str, Any]
    training_seconds: float
    recipe: Mapping[str, Any]
    split: Mapping[str, Any] | None
    inspection: Mapping[str, Any] | None
    calibration: Mapping[str, Any] | None
    lineage: Mapping[str, str]


def write_report(data: ReportData, path: Path) -> None:
    """Write the report."""
    import json
    from dataclasses import asdict

    path.write_text(json.dumps(asdict(data), default=dict))
