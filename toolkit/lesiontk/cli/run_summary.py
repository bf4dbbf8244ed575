"""The summary of a run: the table, the report's path and the gates; and the plan of one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from lesiontk.cli.session import Session, print_text
from lesiontk.errors import GateFailedError, LesionTKError

if TYPE_CHECKING:
    from lesiontk.records import Artefact
    from lesiontk.workflow.run_recipes import RecipeRun
    from lesiontk.workflow.steps import Plan


@dataclass(frozen=True, slots=True)
class Summary:
    """The results of a recipe as a document, and how they are shown and judged."""

    document: Mapping[str, Any]
    show: Callable[[], None]
    judge: Callable[[], None]


def finish_run(session: Session, done: Mapping[str, Artefact]) -> None:
    """Print the results of a run. Raises `GateFailedError` if its gates require it."""
    summary = _summarize_run(done)
    session.emit(summary.document, summary.show)
    summary.judge()


def finish_runs(session: Session, runs: Sequence[RecipeRun]) -> None:
    """Print the results of recipes, of one as `finish_run`. Raises the first error of all."""
    errors: list[LesionTKError] = []
    documents, shown = [], []
    for run in runs:
        if run.error is not None:
            errors.append(run.error)
            documents.append({"recipe": run.recipe.name, "error": str(run.error)})
            continue
        summary = _summarize(run)
        documents.append({**summary.document, "recipe": run.recipe.name})
        shown.append((run.recipe.name, summary))
        try:
            summary.judge()
        except GateFailedError as error:
            errors.append(error)

    def show() -> None:
        for name, summary in shown:
            if len(runs) > 1:
                print_text(f"{name}:")
            summary.show()

    if len(runs) > 1 or shown:
        session.emit(documents if len(runs) > 1 else shown[0][1].document, show)
    if errors:
        raise errors[0]


def _summarize(run: RecipeRun) -> Summary:
    if run.cross_validation is not None:
        return _summarize_cross_validation(run.cross_validation)
    return _summarize_run(run.artefacts)


def _summarize_run(done: Mapping[str, Artefact]) -> Summary:
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
    return Summary(
        {**benchmark.to_document(), "artefacts": artefacts, "report": str(report)},
        show,
        partial(require_gates, benchmark.verdicts, benchmark.unresolved),
    )


def _summarize_cross_validation(artefact: Artefact) -> Summary:
    from lesiontk.cli.tables import print_cross_validation
    from lesiontk.stages.cross_validate import PAGE, read_cross_validation

    result, report = read_cross_validation(artefact), artefact.file(PAGE)

    def show() -> None:
        print_cross_validation(result)
        print_text(f"report: {report}")

    document = {**result.to_document(), "artefact": artefact.name, "report": str(report)}
    return Summary(document, show, lambda: None)


def show_plans(session: Session, plans: Sequence[Sequence[Plan]]) -> None:
    """Print the steps of each recipe, or of each of its folds."""
    steps, lines = [], []
    for plan in (plan for folds in plans for plan in folds):
        recipe = {"recipe": plan.recipe.name} if len(plans) > 1 else {}
        fold = {"fold": plan.recipe.data.split.fold} if plan.recipe.data.split.fold else {}
        title = " ".join([*recipe.values(), *(f"fold {number}" for number in fold.values())])
        lines += [f"{title}:"] if title else []
        for step in plan.steps:
            steps.append({**recipe, **fold, **step.to_document()})
            parents = ", ".join(step.parents.values()) or "-"
            lines.append(f"{step.name:28} {step.stage:11} from {parents}")
    session.emit(steps, lambda: print_text("\n".join(lines)))
