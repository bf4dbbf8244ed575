"""Stage: everything a run found out, as one self-contained HTML file."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from typing import ClassVar

from lesiontk.bench.bench_stage import read_benchmark
from lesiontk.evaluate.evaluate_stage import read_metrics
from lesiontk.records import Artefact
from lesiontk.report.render import ReportData, write_report
from lesiontk.stage import Context, Stage, StageConfig, StageInfo, StageOutput

FILE = "report.html"


class ReportConfig(StageConfig):
    """The heading."""

    name: str
    description: str = ""


class ReportStage(Stage):
    """Produces ``report.html``."""

    info: ClassVar[StageInfo] = StageInfo(
        name="report",
        version=1,
        accepts={
            "benchmark": "benchmark",
            "model": "model",
            "inspection": "inspection",
            "split": "split",
            "images": "images",
            "calibration": "calibration",
            "engine": "engine",
            "evaluation": "evaluation",
        },
        produces="report",
        config=ReportConfig,
        tools=("Jinja2", "matplotlib"),
    )

    def run(
        self, parents: Mapping[str, Artefact], config: ReportConfig, context: Context
    ) -> StageOutput:
        def facts(role: str) -> Mapping[str, object] | None:
            return parents[role].facts if role in parents else None

        model = parents["model"]
        with model.file("curves.csv").open(newline="") as stream:
            curves = [{k: float(v) for k, v in row.items()} for row in csv.DictReader(stream)]
        data = ReportData(
            name=config.name,
            description=config.description,
            benchmark=read_benchmark(parents["benchmark"]),
            metrics={
                role.partition(":")[2]: read_metrics(artefact)
                for role, artefact in parents.items()
                if role.startswith("evaluation:")
            },
            engines={
                role.partition(":")[2]: dict(artefact.facts)
                for role, artefact in parents.items()
                if role.startswith("engine:")
            },
            curves=curves,
            model=dict(model.facts),
            training_seconds=float(model.manifest["seconds"]),
            recipe=dict(model.manifest["recipe"]),
            split=facts("split"),
            inspection=facts("inspection"),
            calibration=facts("calibration"),
            lineage={role: artefact.name for role, artefact in sorted(parents.items())},
        )
        write_report(data, context.directory / FILE)
        return StageOutput({"file": FILE}, auxiliary=(FILE,))
