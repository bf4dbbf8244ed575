"""Several recipes, each from images to report, or in folds."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

from lesiontk.errors import LesionTKError, UsageError
from lesiontk.recipe import Recipe
from lesiontk.records import Artefact
from lesiontk.store import Store
from lesiontk.workflow.cross_validation import is_in_folds, plan_folds, run_folds
from lesiontk.workflow.executor import HERE, Executor
from lesiontk.workflow.runner import run_plan
from lesiontk.workflow.steps import Plan
from lesiontk.workflow.train import check_workers, plan_run

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class RecipeRun:
    """The results of one recipe.

    `artefacts` are those of a run by step; `cross_validation` is that of a recipe in folds, or
    `error` the reason why there is none.
    """

    recipe: Recipe
    artefacts: dict[str, Artefact] = field(default_factory=dict)
    cross_validation: Artefact | None = None
    error: LesionTKError | None = None


def plan_recipes(store: Store, recipes: Sequence[Recipe]) -> list[list[Plan]]:
    """Return the checked plan of each recipe, or of each of its folds.

    Raises `UsageError` for one that cannot run.
    """
    plans = []
    for recipe in recipes:
        check_workers(recipe)
        folded = is_in_folds(recipe)
        plans.append(plan_folds(store, recipe) if folded else [plan_run(store, recipe)])
    return plans


def check_whole(recipes: Sequence[Recipe]) -> None:
    """Raise `UsageError` for a recipe in folds, whose results are those of a cross-validation."""
    for recipe in recipes:
        if is_in_folds(recipe):
            raise UsageError(
                f"{recipe.name} has {recipe.data.split.folds} folds; expected `cross_validate`, or "
                "one fold by data.split.fold."
            )


def run_recipes(
    store: Store, recipes: Sequence[Recipe], executor: Executor = HERE
) -> list[RecipeRun]:
    """Run each recipe, or all of its folds, and return the results in the same order.

    Every recipe is checked before any work; errors are those of `plan_recipes`. A recipe that fails
    later does not end the others. `executor` may run several recipes, or the folds of one, at once.
    """
    plans = plan_recipes(store, recipes)
    runs = [RecipeRun(recipe) for recipe in recipes]

    def run(number: int) -> None:
        done, recipe = runs[number], recipes[number]
        try:
            if is_in_folds(recipe):
                done.cross_validation = run_folds(store, recipe, plans[number], executor)
            else:
                with executor.job(recipe.name if len(recipes) > 1 else ""):
                    done.artefacts = run_plan(plans[number][0], store, executor)
        except LesionTKError as error:
            done.error = error
            if len(recipes) > 1:
                logger.warning("%s failed: %s", recipe.name, error)

    whole = [number for number, recipe in enumerate(recipes) if not is_in_folds(recipe)]
    executor.run([partial(run, number) for number in whole])
    for number in sorted({*range(len(recipes))} - {*whole}):
        run(number)  # its folds are jobs
    return runs
