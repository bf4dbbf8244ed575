"""The summary of a run: the table, the report's path and the gates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from lesiontk.cli.session import Session, print_text

if TYPE_CHECKING:
    from lesiontk.records import Artefact


def finish_run(session: Session, done: Mapping[str, Artefact]) -> None:
    """Print the results of a run. Raises `GateFailedError` if its gates require it."""
    from lesiontk.bench.judging import require_gates
    from lesiontk.cli.tables import print_benchmark
    from lesiontk.stage import collect_roles
    from lesiontk.stages.bench import read_benchmark

    benchmark = read_benchmark(done["benchmark"])
    report = done["report"].file("report.html")
    bundles = collect_roles(done, "bundle")

    def show() -> None:
        print_benchmark(benchmark)
        print_text(f"report: {report}")
        for device, bundle in bundles.items():
            print_text(f"bundle for {device}: {bundle.path}")

    artefacts = {step: artefact.name for step, artefact in done.items()}
    session.emit({**benchmark.to_document(), "artefacts": artefacts, "report": str(report)}, show)
    require_gates(benchmark.verdicts, benchmark.unresolved)
