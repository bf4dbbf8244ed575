"""``lesiontk run``."""

from __future__ import annotations

from dataclasses import replace

import click

from lesiontk.cli.session import (
    RecipeOptions,
    Session,
    command_options,
    gate_option,
    load_recipe,
    recipe_options,
    weights_option,
)


@click.command()
@click.argument("recipe")
@recipe_options
@weights_option
@gate_option
@click.option(
    "--folds",
    type=int,
    help="Cross-validate: train in each of K folds, test every image once.",
    metavar="K",
)
@click.option("--dry-run", is_flag=True, help="Check and show the plan; do nothing.")
@command_options
def run(
    session: Session,
    recipe: str,
    options: RecipeOptions,
    gates: tuple[str, ...],
    folds: int | None,
    dry_run: bool,
) -> None:
    """Run RECIPE (a name or a YAML file) from images to report.

    Finished steps are reused; after an interruption the same command continues. With --folds (or
    data.split.folds in the recipe) a network is trained, converted and evaluated in every fold, and
    the results are put together; gates, benchmark and bundles are those of one split.
    """
    from lesiontk.cli.run_summary import finish_cross_validation, finish_run, show_plans
    from lesiontk.workflow.choose_recipe import with_folds, with_gates
    from lesiontk.workflow.cross_validation import cross_validate, is_in_folds, plan_folds
    from lesiontk.workflow.train import plan_run, run_recipe

    overrides = with_folds(with_gates(options.overrides, gates), folds)
    chosen, store = load_recipe(recipe, replace(options, overrides=overrides)), session.open_store()
    if is_in_folds(chosen, gates):
        if dry_run:
            show_plans(session, plan_folds(store, chosen))
        else:
            finish_cross_validation(session, cross_validate(store, chosen))
    elif dry_run:
        show_plans(session, [plan_run(store, chosen)])
    else:
        finish_run(session, run_recipe(store, chosen))
