"""Cross-validation of a recipe: the ordinary steps of every fold, then their results together."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from functools import partial
from itertools import takewhile

from lesiontk.errors import UsageError
from lesiontk.recipe import Recipe, override_recipe
from lesiontk.records import Artefact
from lesiontk.stage import StepId, collect_engines
from lesiontk.stages.cross_validate import CrossValidateConfig, CrossValidateStage, FoldRole
from lesiontk.store import Store
from lesiontk.technique import TECHNIQUES
from lesiontk.workflow.executor import HERE, Executor
from lesiontk.workflow.runner import build_step
from lesiontk.workflow.steps import Plan
from lesiontk.workflow.train import check_workers, plan_run

logger = logging.getLogger(__name__)


def cross_validate(store: Store, recipe: Recipe, executor: Executor = HERE) -> Artefact:
    """Train, convert and evaluate in every fold of ``data.split``, and return the results together.

    The steps are those of the recipe up to the evaluations; benchmark, gates, report and bundles
    are of one fold, which `run_recipe` makes with ``data.split.fold``. Finished steps are reused,
    so that an interrupted cross-validation continues. Every fold's split, images and calibration
    list are made before any training; `executor` may make several folds at once.
    Raises `UsageError` for a recipe that cannot be cross-validated, `DataError` for too few
    lesions.
    """
    return run_folds(store, recipe, plan_folds(store, recipe), executor)


def run_folds(
    store: Store, recipe: Recipe, plans: Sequence[Plan], executor: Executor = HERE
) -> Artefact:
    """Run the plans of a recipe's folds, and return the results together, as `cross_validate`."""
    done: list[dict[str, Artefact]] = [{} for _ in plans]

    def build(number: int, steps: Iterable[StepId]) -> None:
        with executor.job(f"fold {number}"):
            for step in steps:
                build_step(plans[number - 1], step, store, done[number - 1], executor=executor)

    def build_data(number: int) -> None:
        build(number, takewhile(lambda name: name.kind != "model", list_needed(plans[number - 1])))

    def build_all(number: int) -> None:
        logger.info("fold %d of %d", number, len(plans))
        build(number, list_needed(plans[number - 1]))

    numbers = range(1, len(plans) + 1)
    executor.run([partial(build_data, number) for number in numbers])
    executor.run([partial(build_all, number) for number in numbers])
    parents: dict[str, Artefact] = {"inspection": done[0]["inspection"]}
    for number, made in enumerate(done, start=1):
        parents[FoldRole.of_fold("split", number)] = made["split"]
        for engine, evaluation in collect_engines(made, "evaluation").items():
            parents[FoldRole.of_fold("evaluation", number, engine)] = evaluation
    config = CrossValidateConfig(
        name=recipe.name, description=recipe.description, statistics=recipe.evaluate
    )
    document = recipe.model_dump(mode="json")
    return store.build(CrossValidateStage(), config, parents, recipe=document)


def is_in_folds(recipe: Recipe, gates: Sequence[str] = ()) -> bool:
    """Return whether a recipe is cross-validated. Raises `UsageError` if `gates` were given."""
    split = recipe.data.split
    every = split.folds > 0 and split.fold == 0
    if every and gates:
        raise UsageError(
            f"{len(gates)} gate(s) were specified with {split.folds} folds; expected none, because "
            "a gate decides on one engine. Specify it for one fold, with data.split.fold."
        )
    return every


def plan_folds(store: Store, recipe: Recipe) -> list[Plan]:
    """Return the checked plan of each fold. Raises as `cross_validate`."""
    check_workers(recipe)
    _check_folds(recipe)
    return [
        plan_run(store, override_recipe(recipe, [f"data.split.fold={fold}"]), gated=False)
        for fold in range(1, recipe.data.split.folds + 1)
    ]


def _check_folds(recipe: Recipe) -> None:
    """Raise `UsageError` for what knows other images than those of a fold's training part."""
    split = recipe.data.split
    if not split.folds or split.fold:
        raise UsageError(
            f"data.split.folds is {split.folds} and data.split.fold {split.fold}; expected the "
            "number of folds, 2 or more, and fold 0 for all of them."
        )
    if recipe.imported is not None:
        raise UsageError(
            "the recipe imports a trained model, which has seen the images of a given split; "
            "cross-validation trains a network in every fold: expected a recipe without imported."
        )
    if recipe.calibration.list is not None:
        raise UsageError(
            f"calibration.list is {recipe.calibration.list}, training images of a given split; "
            "expected null, so that each fold draws from its own training images."
        )
    for entry in recipe.compress:
        info = TECHNIQUES.get(entry.technique).info
        if given := [n for n in (*info.networks, *info.weights) if entry.options.get(n)]:
            raise UsageError(
                f"compress.{entry.technique}.{given[0]} is {entry.options[given[0]]}, a network "
                "that was trained on a given split and has seen test images of other folds; "
                "expected a recipe without it. A network's own parent can teach it in every fold."
            )


def list_needed(plan: Plan) -> list[StepId]:
    """Return the steps up to the evaluations, in the order of the plan."""
    needed = {step.name for step in plan.steps if step.name.kind == "evaluation"}
    for step in reversed(plan.steps):
        if step.name in needed:
            needed.update(step.parents.values())
    return [step.name for step in plan.steps if step.name in needed]
