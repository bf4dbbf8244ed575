"""``lesiontk import``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from lesiontk.cli.session import Session, command_options, print_text, set_option
from lesiontk.records import ModelFacts

if TYPE_CHECKING:
    from lesiontk.stages.import_model import ModelImport


@click.command("import")
@click.argument("model", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--data",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder of the images that it was trained on, or of images like them, and their table.",
)
@click.option("--task", help="Default: the recipe's; without a recipe seven_class.")
@click.option(
    "--recipe",
    help="Import it as this recipe's model, such as a published network; compression uses it.",
)
@click.option(
    "--pixels",
    type=click.Choice(["0..255", "0..1", "-1..1", "caffe", "imagenet"]),
    default="0..255",
    show_default=True,
    help="Input range of the model: bytes, scaled bytes, caffe (BGR minus means, as VGG and "
    "ResNet V1), imagenet (0..1 minus means, over deviations, as PyTorch).",
)
@click.option(
    "--labels",
    default="",
    help="Labels in the order of the model's outputs, such as mel,nv,bkl; one sigmoid output is "
    "the second of two. Default: the task's order.",
)
@set_option
@command_options
def import_model(
    session: Session,
    model: Path,
    data: Path | None,
    task: str | None,
    recipe: str | None,
    pixels: str,
    labels: str,
    overrides: tuple[str, ...],
) -> None:
    """Import a Keras MODEL trained elsewhere: .keras of Keras 2 or 3, .h5, or a SavedModel.

    Its layers are rebuilt and its outputs compared; then quantize, bench and bundle it.
    """
    from lesiontk.stages.import_model import ModelImport
    from lesiontk.workflow.train import import_file

    order = [label.strip() for label in labels.split(",") if label.strip()]
    made = import_file(
        session.open_store(), model, data=data, task=task, pixels=pixels, labels=order,
        recipe=recipe, overrides=overrides,
    )  # fmt: skip
    facts = made.read_facts(ModelFacts)
    imported, scores = facts.read_change(ModelImport), facts.validation
    note = _describe_order(imported)
    text = (
        f"{made.name}: {facts.parameters:,} parameters in {imported.layers} layers, "
        f"outputs within {imported.greatest_difference:.1g} of {model.name}'s; "
        f"validation balanced accuracy {scores.balanced_accuracy:.3f} (n = {scores.n}"
        f"{'; it may have been trained on these' if facts.may_have_seen_test else ''})\n{note}"
    )
    document = {
        "model": made.name, "path": str(made.path), "note": note, **facts.to_document()
    }  # fmt: skip
    session.emit(document, lambda: print_text(text))


def _describe_order(imported: ModelImport) -> str:
    order = f"outputs taken in the order {', '.join(imported.labels)}"
    assumed = "; the task's order was assumed, specify another with --labels"
    return order + (assumed if imported.labels_assumed else ", as given")
