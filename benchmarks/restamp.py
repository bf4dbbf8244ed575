"""Write threshold, temperature and figures into published engines, and into cards what files say.

    python benchmarks/restamp.py [RECIPE…]

For each recipe (default: all that are published) takes the figures of results/RECIPE.json, those
of `replaced` for engines that took others' places, writes them into the files of engines/RECIPE/,
and renews the part of the card that tells of its files. Where a file is not the one that its
figures were measured on, by its size without them, nothing of the recipe is written.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from published_card import list_engine_files, read_replaced, update_card

from lesiontk.backends import find_backend
from lesiontk.backends.stamp import stamp
from lesiontk.bench.benchmark import Benchmark
from lesiontk.evaluate.assessment import Assessment
from lesiontk.evaluate.findings import describe_emulation, describe_scores

HERE = Path(__file__).parent
CARD = "README.md"


@click.command()
@click.argument("recipes", nargs=-1)
def main(recipes: tuple[str, ...]) -> None:
    """Stamp the published engines of RECIPES and renew their cards."""
    folders = sorted(path for path in (HERE / "engines").iterdir() if path.is_dir())
    for folder in folders:
        if not recipes or folder.name in recipes:
            published = json.loads((HERE / "results" / f"{folder.name}.json").read_text())
            for line in restamp(folder, published):
                click.echo(f"{folder.name}: {line}")


def restamp(folder: Path, published: Mapping[str, Any]) -> list[str]:
    """Stamp the engines of a folder and renew its card; returns a line for each file.

    Raises `ClickException`, before anything is written, for a file that the figures are not of.
    """
    found = find_assessments(folder, published)
    lines = []
    for path, assessment in found.items():
        if assessment is None:
            lines.append(f"{path.name} was not evaluated; left as it is")
        else:
            stamp(path, assessment, path)
            lines.append(f"{path.name} carries its figures")
    renew_card(folder, published)
    return lines


def find_assessments(folder: Path, published: Mapping[str, Any]) -> dict[Path, Assessment | None]:
    """Return each engine file's assessment; None where the results have no figures of it."""
    benchmark = Benchmark.from_document(published["benchmark"])
    rows = benchmark.by_target
    for target, entry in read_replaced(published).items():
        rows[target] = entry.row
    confidence = published["recipe"].get("evaluate", {}).get("confidence", 0.95)
    found: dict[Path, Assessment | None] = {}
    for path in list_engine_files(folder):
        backend = find_backend(path)()
        spec = backend.read_spec(path)
        target = f"{spec.backend}:{spec.precision}"
        row = rows.get(target)
        found[path] = None
        if row is None or not row.metrics:
            continue
        size = len(backend.split_record(path.read_bytes())[0])
        if size != row.size_bytes or spec.split_hash != benchmark.split_hash:
            raise click.ClickException(
                f"{folder.name}/{path.name} has {size} bytes, and the figures are of a file of "
                f"{row.size_bytes}: publish it together with its own."
            )
        # Results from before they held a confusion matrix tell of emulation alone.
        findings = [] if row.emulated_by is None else [describe_emulation(target, row.emulated_by)]
        if row.confusion:
            findings = describe_scores(
                row, target, spec.labels, benchmark.critical, confidence, row.emulated_by
            )
        found[path] = Assessment.from_scores(
            row,
            spec.labels,
            split_hash=benchmark.split_hash,
            confidence=confidence,
            findings=findings,
        )
    return found


def renew_card(folder: Path, published: Mapping[str, Any]) -> None:
    """Let the card say what the files beside it carry and reach, and nothing of those replaced."""
    card = folder / CARD
    card.write_text(update_card(card.read_text(), folder, published))


if __name__ == "__main__":
    main()
