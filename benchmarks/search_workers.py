"""The same search in one process and with two workers of Ray: one front?

    python benchmarks/search_workers.py --data DIR [--workspace DIR]

Runs the grid of search/engines.yaml twice, in two workspaces, so that nothing is shared. Writes
results/search_workers.md. After an interruption the same command continues.
"""

from __future__ import annotations

import time
from pathlib import Path

import click

from lesiontk.api.progress import make_progress
from lesiontk.report.search_words import describe_assignment
from lesiontk.search.result import SearchResult
from lesiontk.store import Store
from lesiontk.system.machine import describe_machine
from lesiontk.workflow.executor import THIS_PROCESS, WorkerOptions
from lesiontk.workflow.search import run_search

HERE = Path(__file__).parent
SPACE = HERE / "search" / "engines.yaml"
WORKERS = {"one process": THIS_PROCESS, "two workers of Ray": WorkerOptions("ray", parallel=2)}


@click.command()
@click.option(
    "--data", type=click.Path(exists=True, file_okay=False, path_type=Path), required=True
)
@click.option("--workspace", type=click.Path(path_type=Path), default="lesiontk-workspace")
def compare(data: Path, workspace: Path) -> None:
    """Run the search both ways, and write the page."""
    found, seconds = {}, {}
    for number, (name, workers) in enumerate(WORKERS.items()):
        store, start = Store(workspace / f"{number}", make_progress()), time.perf_counter()
        found[name] = run_search(store, SPACE, data=data, workers=workers).results.collect()
        seconds[name] = time.perf_counter() - start
    (HERE / "results" / "search_workers.md").write_text(render(found, seconds))


def list_figures(result: SearchResult) -> list[tuple[str, bool, float, float]]:
    """Return settings, whether on the front, and both objectives of each trial."""
    return sorted(
        (
            describe_assignment(trial.assignment),
            trial.number in result.front,
            result.figures(trial.number).value("balanced_accuracy"),
            result.figures(trial.number).value("size_mb"),
        )
        for trial in result.trials
    )


def render(found: dict[str, SearchResult], seconds: dict[str, float]) -> str:
    """Return the page."""
    one, two = (list_figures(result) for result in found.values())
    verdict = "the same front, and the same figures of every engine" if one == two else (
        "the same front" if [row[:2] for row in one] == [row[:2] for row in two]
        else "different fronts"
    )  # fmt: skip
    times = ", ".join(f"{name} {took:.0f} s" for name, took in seconds.items())
    lines = [
        "# One search, in one process and with two workers\n",
        f"Every int8 engine of two published networks ([space](../search/engines.yaml)), on "
        f"{next(iter(found.values())).figures(0).images} validation images, each way in a "
        f"workspace of its own: {verdict}. Wall time of one run on {describe_machine().processor}, "
        f"where one trial uses all cores already: {times}. Again: `python "
        "benchmarks/search_workers.py --data HAM10000_FOLDER`.\n",
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
