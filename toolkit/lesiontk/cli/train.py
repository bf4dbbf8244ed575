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
from lesiontk.records import ModelFacts


@click.command()
@click.argument("recipe", default="demo")
@recipe_options
@weights_option
@click.option(
    "--resume/--restart", default=True, help="Resume an unfinished training, or start over."
)
@command_options
def train(
    session: Session,
    recipe: str,
    options: RecipeOptions,
    resume: bool,
) -> None:
    """Train RECIPE's network (default: demo, on synthetic images).

    With --set train.distribute=multi_worker, run it on every worker that TF_CONFIG lists; all but
    the first work in WORKSPACE/workers/INDEX, and all get the same model.
    """
    from lesiontk.workflow.train import train_recipe

    chosen = load_recipe(recipe, options)
    model = train_recipe(session.open_store(), chosen, restart=not resume)
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
