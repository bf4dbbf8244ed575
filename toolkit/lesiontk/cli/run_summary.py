"""The summary of a run: the table, the report's path and the gates; and the plan of one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from lesiontk.cli.session import Session, print_text

if TYPE_CHECKING:
    from lesiontk.records import Artefact
    from lesiontk.workflow.steps import Plan


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


def finish_cross_validation(session: Session, artefact: Artefact) -> None:
    """Print the results of a cross-validation."""
    from lesiontk.cli.tables import print_cross_validation
    from lesiontk.stages.cross_validate import PAGE, read_cross_validation

    result, report = read_cross_validation(artefact), artefact.file(PAGE)

    def show() -> None:
        print_cross_validation(result)
        print_text(f"report: {report}")

    document = {**result.to_document(), "artefact": artefact.name, "report": str(report)}
    session.emit(document, show)


def show_plans(session: Session, plans: Sequence[Plan]) -> None:
    """Print the steps of one plan, or of each fold's."""
    from lesiontk.workflow.steps import describe_plan

    steps, lines = [], []
    for plan in plans:
        fold = {"fold": plan.recipe.data.split.fold} if len(plans) > 1 else {}
        lines += [f"fold {number}:" for number in fold.values()]
        for step in describe_plan(plan):
            steps.append({**fold, **step})
            parents = ", ".join(step["parents"].values()) or "-"
            lines.append(f"{step['step']:28} {step['stage']:11} from {parents}")
    session.emit(steps, lambda: print_text("\n".join(lines)))
