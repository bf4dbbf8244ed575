"""Cross-validate recipes on HAM10000, and write their results together.

    python benchmarks/cross_validation.py RECIPE... --data DIR [--folds 5] [--workspace DIR]

The engines are float32 and int8 TFLite beside Keras. A recipe that was cross-validated before is
replaced in results/cross_validation.json; results/cross_validation.md has the tables of all. After
an interruption the same command continues.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from lesiontk.api.progress import make_progress
from lesiontk.cli.session import set_option
from lesiontk.evaluate.cross_validation import CrossValidation
from lesiontk.report.cross_validation import (
    DIFFERENCE_COLUMNS,
    ENGINE_COLUMNS,
    fold_columns,
    list_difference_cells,
    list_engine_cells,
    list_fold_cells,
    list_procedure_cells,
)
from lesiontk.stages.cross_validate import read_cross_validation
from lesiontk.store import Store
from lesiontk.workflow.choose_recipe import choose_recipe, with_folds
from lesiontk.workflow.cross_validation import cross_validate

RESULTS = Path(__file__).parent / "results"
CONVERT = ("keras:float32", "tflite:float32", "tflite:int8")


@click.command()
@click.argument("recipes", nargs=-1, required=True)
@click.option(
    "--data", type=click.Path(exists=True, file_okay=False, path_type=Path), required=True
)
@click.option("--folds", type=int, default=5, show_default=True)
@click.option("--workspace", type=click.Path(path_type=Path), default="lesiontk-workspace")
@set_option
def measure(
    recipes: Sequence[str], data: Path, folds: int, workspace: Path, overrides: tuple[str, ...]
) -> None:
    """Cross-validate each recipe; write the tables."""
    store = Store(workspace, make_progress())
    for name in recipes:
        changes = with_folds([f"convert={json.dumps(CONVERT)}", *overrides], folds)
        result = read_cross_validation(
            cross_validate(store, choose_recipe(name, data=data, overrides=changes))
        )
        publish(result, overrides, RESULTS)


def publish(result: CrossValidation, overrides: Sequence[str], folder: Path) -> None:
    """Add a result to cross_validation.json and .md in a folder, with the changes to its recipe."""
    folder.mkdir(exist_ok=True)
    file = folder / "cross_validation.json"
    known = json.loads(file.read_text()) if file.is_file() else {}
    added = {"set": list(overrides), "result": result.to_document()}
    documents = dict(sorted({**known, result.recipe: added}.items()))
    file.write_text(json.dumps(documents, indent=1) + "\n")
    (folder / "cross_validation.md").write_text(render(documents))


def render(documents: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the page for recipe -> its result and the changes to the recipe."""
    parts = [
        "# Cross-validation\n\nEvery image is tested once, by engines of a network that was "
        "trained without its lesion. Decisions are counted over all folds, AUCs are means of the "
        "folds'. In brackets 95 % intervals: of these networks from a bootstrap of lesions within "
        "folds, of the procedure a t interval of the folds' values with the variance of Nadeau and "
        "Bengio (2003). Sensitivity and specificity are at each fold's own threshold, frozen on "
        "its validation part."
    ]
    for name, document in documents.items():
        result = CrossValidation.from_document(document["result"])
        changes = f" with {', '.join(f'`{each}`' for each in document['set'])}"
        command = " ".join(f"--set {each}" for each in document["set"])
        parts += [
            f"## {name}\n\nThe recipe{changes if document['set'] else ''}: "
            f"{len(result.folds)} folds, n = {result.images} images of "
            f"{result.lesions} lesions; positive: {', '.join(result.positive)}. "
            f"Again: `python benchmarks/cross_validation.py {name} --data HAM10000_FOLDER "
            f"{command}`.\n\nThese networks:",
            _table(ENGINE_COLUMNS, list_engine_cells(result)),
            "The procedure, mean of the folds:",
            _table(ENGINE_COLUMNS, list_procedure_cells(result)),
            "Difference to full precision, and its standard deviation between folds:",
            _table(DIFFERENCE_COLUMNS, list_difference_cells(result)),
            "Balanced accuracy of each fold:",
            _table(fold_columns(result), list_fold_cells(result, "balanced_accuracy")),
        ]
    return "\n\n".join(parts) + "\n"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


if __name__ == "__main__":
    measure()
