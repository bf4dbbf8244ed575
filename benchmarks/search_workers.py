"""The same search in one process and with two workers of Ray: one front?

    python benchmarks/search_workers.py --data DIR [--workspace DIR]

Runs the grid of search/engines.yaml twice, in two workspaces, so that nothing is shared. Writes
results/search_workers.md. After an interruption the same command continues.
"""

from __future__ import annotations

from pathlib import Path

import click
from search_study import SHORT

from lesiontk.api.progress import make_progress
from lesiontk.report.search_words import describe_assignment
from lesiontk.search.result import SearchResult
from lesiontk.store import Store
from lesiontk.workflow.executor import THIS_PROCESS, WorkerOptions
from lesiontk.workflow.search import run_search

HERE = Path(__file__).parent
SPACE = HERE / "search" / "engines.yaml"
WORKERS = {"alone": THIS_PROCESS, "two": WorkerOptions("ray", parallel=2)}


@click.command()
@click.option(
    "--data", type=click.Path(exists=True, file_okay=False, path_type=Path), required=True
)
@click.option("--workspace", type=click.Path(path_type=Path), default="lesiontk-workspace")
def compare(data: Path, workspace: Path) -> None:
    """Run the search both ways, and write the page."""
    one, two = (
        run_search(
            Store(workspace / name, make_progress()), SPACE, data=data, workers=workers
        ).results.collect()
        for name, workers in WORKERS.items()
    )
    (HERE / "results" / "search_workers.md").write_text(render(one, two))


def list_figures(result: SearchResult) -> list[tuple[str, bool, float, float]]:
    """Return settings, whether on the front, and both objectives of each trial."""
    return sorted(
        (
            SHORT.sub("", describe_assignment(trial.assignment)),
            trial.number in result.front,
            result.figures(trial.number).value("balanced_accuracy"),
            result.figures(trial.number).value("size_mb"),
        )
        for trial in result.trials
    )


def render(alone: SearchResult, together: SearchResult) -> str:
    """Return the page."""
    one, two = list_figures(alone), list_figures(together)
    verdict = "the same front, and the same figures of every engine" if one == two else (
        "the same front" if [row[:2] for row in one] == [row[:2] for row in two]
        else "different fronts"
    )  # fmt: skip
    lines = [
        "# One search, in one process and with two workers\n",
        f"Every int8 engine of two published networks ([space](../search/engines.yaml)), on "
        f"{alone.figures(0).images} validation images, each way in a workspace of its own: "
        f"{verdict}. Again: `python benchmarks/search_workers.py --data HAM10000_FOLDER`.\n",
        "| settings | front, one process | two workers | balanced accuracy, one process "
        "| two workers | MB |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for (settings, front, score, size), (_, other_front, other, _) in zip(one, two, strict=True):
        lines.append(
            f"| {settings} | {'yes' if front else 'no'} | {'yes' if other_front else 'no'} "
            f"| {score:.4f} | {other:.4f} | {size:.2f} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    compare()
