"""``lesiontk encoder``."""

from __future__ import annotations

from pathlib import Path

import click

from lesiontk.cli.session import (
    RecipeOptions,
    Session,
    command_options,
    load_recipe,
    print_text,
    recipe_options,
)


@click.command()
@click.argument("encoder", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--recipe", default="demo", show_default=True, help="Recipe whose task and split are used."
)
@click.option("--image-size", default=224, show_default=True, help="Pixels of each side.")
@click.option(
    "--pixels",
    type=click.Choice(["0..255", "0..1", "-1..1", "caffe", "imagenet", "clip"]),
    default="imagenet",
    show_default=True,
    help="Normalization of the encoder's input.",
)
@click.option("--output", default="", help="A tensor of the graph. Default: its only output.")
@click.option(
    "--pooling",
    type=click.Choice(["auto", "none", "class", "mean", "class_mean"]),
    default="auto",
    show_default=True,
    help="From tokens or feature maps to one vector; auto: class token and mean of the others, or "
    "the mean of a map.",
)
@click.option("--views", default=4, show_default=True, help="Views of each training image.")
@click.option(
    "--augment", default="dermoscopy", show_default=True, help="Augmentation of all but the first."
)
@click.option(
    "--pretraining", default="unknown", show_default=True,
    help="Images that the encoder was pretrained on, for the model card.",
)  # fmt: skip
@click.option(
    "--has-not-seen-test",
    is_flag=True,
    help="The pretraining images are known to contain no image of this data set. Without it, the "
    "encoder and its students are marked.",
)
@recipe_options
@command_options
def encoder(
    session: Session,
    encoder: Path,
    recipe: str,
    image_size: int,
    pixels: str,
    output: str,
    pooling: str,
    views: int,
    augment: str,
    pretraining: str,
    has_not_seen_test: bool,
    options: RecipeOptions,
) -> None:
    """Make a teacher of a frozen image ENCODER (ONNX): a linear classifier on its features.

    Use it with distill --teacher NAME.
    """
    from lesiontk.stages.encoder_head import EncoderTeacher
    from lesiontk.workflow.encode import fit_encoder

    made = fit_encoder(
        session.open_store(), load_recipe(recipe, options), encoder, image_size=image_size,
        pixels=pixels, output=output, pooling=pooling, views=views, augment=augment,
        pretraining=pretraining, has_not_seen_test=has_not_seen_test,
    )  # fmt: skip
    teacher = made.read_facts(EncoderTeacher)
    scores = teacher.validation
    text = (
        f"{made.name}: validation balanced accuracy {scores.balanced_accuracy:.3f}, macro AUC "
        f"{scores.metrics['macro_auc']:.3f} (n = {scores.n}, {teacher.views} view(s) of each "
        f"training image)\nnext: lesiontk distill --teacher {made.name}"
    )
    session.emit(
        {"name": made.name, "path": str(made.path), **teacher.to_document()},
        lambda: print_text(text),
    )
