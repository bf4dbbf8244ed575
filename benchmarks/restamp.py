"""Write threshold, temperature and results into published engines and their model cards.

    python benchmarks/restamp.py [RECIPE…]

For each recipe (default: all that are published) writes the results of results/RECIPE.json, for
replaced engines those of `replaced`, into the files of engines/RECIPE/, and updates the part of the
card about its files. If a file is not the one of its results, by its size without them, nothing is
written for the recipe.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from model_card import HALF
from published_card import list_engine_files, read_replaced, update_card

from lesiontk.backends import find_backend
from lesiontk.backends.stamp import stamp
from lesiontk.bench.benchmark import Benchmark
from lesiontk.evaluate.assessment import Assessment
from lesiontk.evaluate.findings import describe_emulation, describe_scores
from lesiontk.stage import EngineName

HERE = Path(__file__).parent
CARD = "README.md"


@click.command()
@click.argument("recipes", nargs=-1)
def main(recipes: tuple[str, ...]) -> None:
    """Stamp the published engines of RECIPES and update their cards."""
    folders = sorted(path for path in (HERE / "engines").iterdir() if path.is_dir())
    for folder in folders:
        if not recipes or folder.name in recipes:
            published = json.loads((HERE / "results" / f"{folder.name}.json").read_text())
            for line in restamp(folder, published):
                click.echo(f"{folder.name}: {line}")


def restamp(folder: Path, published: Mapping[str, Any]) -> list[str]:
    """Stamp the engines of a folder, update its card, and return a line for each file.

    Raises `ClickException`, before anything is written, for a file without matching results.
    """
    found = find_assessments(folder, published)
    lines = []
    for path, assessment in found.items():
        if assessment is None:
            lines.append(f"{path.name} was not evaluated; unchanged")
        else:
            stamp(path, assessment, path)
            lines.append(f"{path.name} contains its results")
    renew_card(folder, published)
    return lines


def find_assessments(folder: Path, published: Mapping[str, Any]) -> dict[Path, Assessment | None]:
    """Return each engine file's assessment; None without results."""
    benchmark = Benchmark.from_document(published["benchmark"])
    rows = benchmark.by_target
    for target, entry in read_replaced(published).items():
        rows[EngineName(target)] = entry.row
    confidence = published["recipe"].get("evaluate", {}).get("confidence", 0.95)
    found: dict[Path, Assessment | None] = {}
    for path in list_engine_files(folder):
        backend = find_backend(path)()
        spec = backend.read_spec(path)
        target = f"{spec.backend}:{spec.precision}"
        row = rows.get(EngineName(target))
        found[path] = None
        if row is None or not row.metrics or path.name == HALF:
            continue
        size = len(backend.split_record(path.read_bytes())[0])
        if size != row.size_bytes or spec.split_hash != benchmark.split_hash:
            raise click.ClickException(
                f"{folder.name}/{path.name} has {size} bytes, but the results are those of a file "
                "of "
                f"{row.size_bytes}: publish it together with its own results."
            )
        # Results without a confusion matrix only state emulation.
        findings = [] if row.emulated_by is None else [describe_emulation(target, row.emulated_by)]
        if row.confusion:
            findings = describe_scores(
                row, target, spec.labels, benchmark.critical, confidence, row.emulated_by
            )
        recorded = backend.read_assessment(path)
        found[path] = Assessment.from_scores(
            row,
            spec.labels,
            split_hash=benchmark.split_hash,
            confidence=confidence,
            findings=findings,
            # The published results have none: those in the file stay.
            subgroups=recorded.test.subgroups if recorded and recorded.test else (),
        )
    return found


def renew_card(folder: Path, published: Mapping[str, Any]) -> None:
    """Update the card with the content and the results of its files, without replaced ones."""
    card = folder / CARD
    card.write_text(update_card(card.read_text(), folder, published))


if __name__ == "__main__":
    main()
