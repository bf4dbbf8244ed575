"""``lesiontk train``."""

from __future__ import annotations

import click

from lesiontk.cli.session import (
    RecipeOptions,
    Session,
    command_options,
    load_recipe,
    print_text,
    recipe_options,
    weights_option,
)
from lesiontk.records import Artefact, ModelFacts


@click.command()
@click.argument("recipe", default="demo")
@recipe_options
@weights_option
@click.option(
    "--resume/--restart", default=True, help="Resume an unfinished training, or start over."
)
@click.option(
    "--seeds",
    type=int,
    help="Train with N seeds, from train.seed on, and compare them on validation.",
    metavar="N",
)
@command_options
def train(
    session: Session,
    recipe: str,
    options: RecipeOptions,
    resume: bool,
    seeds: int | None,
) -> None:
    """Train RECIPE's network (default: demo, on synthetic images).

    With --set train.distribute=multi_worker, run it on every worker that TF_CONFIG lists; all but
    the first work in WORKSPACE/workers/INDEX, and all get the same model. With --seeds the model
    that is best on validation becomes the latest; no test image is read. Show the curves, also of a
    running training, with `tensorboard --logdir WORKSPACE`.
    """
    from lesiontk.workflow.seeds import compare_seeds
    from lesiontk.workflow.train import train_recipe

    chosen, store = load_recipe(recipe, options), session.open_store()
    if seeds is None:
        _show_model(session, train_recipe(store, chosen, restart=not resume))
    else:
        _show_seeds(session, compare_seeds(store, chosen, seeds, restart=not resume))


def _show_model(session: Session, model: Artefact) -> None:
    facts = model.read_facts(ModelFacts)
    scores = facts.validation

    def show() -> None:
        print_text(
            f"{model.name}: {facts.architecture}, {facts.parameters:,} parameters, best "
            f"epoch {facts.best_epoch} of {facts.epochs}, validation balanced accuracy "
            f"{scores.balanced_accuracy:.3f} (n = {scores.n})"
        )
        print_text(f"curves: {model.file('curves.png')}")

    session.emit({"model": model.name, "path": str(model.path), **facts.to_document()}, show)


def _show_seeds(session: Session, artefact: Artefact) -> None:
    from lesiontk.cli.tables import print_seeds
    from lesiontk.stages.compare_seeds import read_seeds

    comparison = read_seeds(artefact)
    document = {**comparison.to_document(), "artefact": artefact.name}
    session.emit(document, lambda: print_seeds(comparison))
