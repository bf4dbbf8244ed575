"""``lesiontk run``."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import click

from lesiontk.cli.session import (
    RecipeOptions,
    Session,
    command_options,
    gate_option,
    load_recipe,
    recipe_options,
    weights_option,
    workers_options,
)

if TYPE_CHECKING:
    from lesiontk.workflow.executor import WorkerOptions


@click.command()
@click.argument("recipes", metavar="RECIPE...", nargs=-1, required=True)
@recipe_options
@weights_option
@gate_option
@click.option(
    "--folds",
    type=int,
    help="Cross-validate: train in each of K folds, test every image once.",
    metavar="K",
)
@workers_options
@click.option("--dry-run", is_flag=True, help="Check and show the plan; do nothing.")
@command_options
def run(
    session: Session,
    recipes: tuple[str, ...],
    options: RecipeOptions,
    gates: tuple[str, ...],
    folds: int | None,
    workers: WorkerOptions,
    dry_run: bool,
) -> None:
    """Run each RECIPE (a name or a YAML file) from images to report.

    Finished steps are reused; after an interruption the same command continues. With --folds (or
    data.split.folds in the recipe) a network is trained, converted and evaluated in every fold, and
    the results are put together; gates, benchmark and bundles are those of one split. Several
    recipes, or folds, run at once with --workers ray.
    """
    from lesiontk.cli.run_summary import finish_runs, show_plans
    from lesiontk.workflow.choose_recipe import with_folds, with_gates
    from lesiontk.workflow.cross_validation import is_in_folds
    from lesiontk.workflow.executor import open_executor
    from lesiontk.workflow.run_recipes import plan_recipes, run_recipes

    options = replace(options, overrides=with_folds(with_gates(options.overrides, gates), folds))
    chosen, store = [load_recipe(name, options) for name in recipes], session.open_store()
    for recipe in chosen:
        is_in_folds(recipe, gates)
    if dry_run:
        show_plans(session, plan_recipes(store, chosen))
        return
    with open_executor(store, workers) as executor:
        runs = run_recipes(store, chosen, executor)
    finish_runs(session, runs)
