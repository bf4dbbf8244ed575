"""Trainings of a recipe with several seeds on one split."""

from __future__ import annotations

import logging

from lesiontk.errors import UsageError
from lesiontk.recipe import Recipe, override_recipe
from lesiontk.records import Artefact
from lesiontk.stages.compare_seeds import (
    CompareSeedsConfig,
    CompareSeedsStage,
    SeedRole,
    read_seeds,
)
from lesiontk.store import Store
from lesiontk.workflow.runner import build_step
from lesiontk.workflow.train import check_workers, plan_run

logger = logging.getLogger(__name__)


def compare_seeds(store: Store, recipe: Recipe, seeds: int, *, restart: bool = False) -> Artefact:
    """Train a recipe with `seeds` seeds, from ``train.seed`` on, and return their comparison.

    Only the seed of the network's training differs; techniques have their own. Finished trainings
    are reused, unfinished ones continue, or start again with `restart`. The best model becomes the
    latest of the workspace. Raises `UsageError` for fewer than two seeds, or a recipe that trains
    no network.
    """
    check_workers(recipe)
    if seeds < 2:
        raise UsageError(f"seeds is {seeds}; expected 2 or more, because one has no spread.")
    if recipe.imported is not None:
        raise UsageError(
            "the recipe imports a trained model, which has no seed; expected a recipe without "
            "imported."
        )
    first = recipe.train.seed
    plans = {
        seed: plan_run(store, override_recipe(recipe, [f"train.seed={seed}"]), gated=False)
        for seed in range(first, first + seeds)
    }
    models: dict[str, Artefact] = {}
    for number, (seed, plan) in enumerate(plans.items(), start=1):
        logger.info("seed %d, training %d of %d", seed, number, seeds)
        models[SeedRole.of_seed(seed)] = build_step(plan, plan.model, store, {}, restart=restart)
    made = store.build(
        CompareSeedsStage(),
        CompareSeedsConfig(name=recipe.name),
        models,
        recipe=recipe.model_dump(mode="json"),
    )
    best = plans[read_seeds(made).best]
    build_step(best, best.model, store, {})
    return made
