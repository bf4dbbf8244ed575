"""How a search draws the values of a trial with Optuna, and which trainings it ends early."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from lesiontk.errors import UsageError
from lesiontk.search.criteria import Criteria
from lesiontk.search.space import Dimension, SearchSpace

if TYPE_CHECKING:
    import optuna

EPOCH_METRICS = ("balanced_accuracy", "accuracy", "macro_auc", "log_loss")
"""Metrics that a training measures after each epoch."""


def make_sampler(space: SearchSpace, number: int) -> optuna.samplers.BaseSampler:
    """Return the sampler of one trial; its seed is of the space and of the trial's number."""
    import numpy as np
    import optuna

    seed = int(np.random.SeedSequence([space.seed, number]).generate_state(1)[0])
    if space.sampler == "tpe":
        return optuna.samplers.TPESampler(seed=seed)
    if space.sampler == "nsga2":
        population = min(max(space.trials // 3, 2), 50)
        return optuna.samplers.NSGAIISampler(seed=seed, population_size=population)
    return optuna.samplers.RandomSampler(seed=seed)  # a grid is enqueued


def make_pruner(space: SearchSpace, epochs: int) -> optuna.pruners.BasePruner:
    """Return the pruner of trainings of up to `epochs` epochs."""
    import optuna

    if space.pruner == "hyperband":
        return optuna.pruners.HyperbandPruner(min_resource=1, max_resource=epochs)
    return optuna.pruners.NopPruner()


def check_pruner(space: SearchSpace, criteria: Criteria) -> None:
    """Raise `UsageError` if the pruner cannot compare trainings by the objective."""
    if space.pruner == "none":
        return
    if len(criteria.objectives) != 1 or criteria.objectives[0] not in EPOCH_METRICS:
        raise UsageError(
            f"the pruner {space.pruner} compares trainings after each epoch, but the objectives "
            f"are {', '.join(criteria.objectives)}; expected one of {', '.join(EPOCH_METRICS)} "
            "alone (others can be constraints), or pruner: none."
        )


def label_choice(value: Any) -> Any:
    """Return a choice as the database has it: a scalar, or JSON."""
    scalar = value is None or isinstance(value, str | int | float)
    return value if scalar else json.dumps(value, sort_keys=True)


def suggest_value(trial: optuna.Trial, dimension: Dimension) -> Any:
    """Return the sampler's value of a dimension for a trial."""
    if dimension.choices:
        labels = [label_choice(value) for value in dimension.choices]
        label = trial.suggest_categorical(dimension.key, labels)
        return dimension.choices[_index(labels, label)]
    low, high, step = dimension.low, dimension.high, dimension.step
    if dimension.integer:
        return trial.suggest_int(
            dimension.key, int(low), int(high), step=int(step or 1), log=dimension.log
        )
    return trial.suggest_float(dimension.key, low, high, step=step, log=dimension.log)


def _index(labels: list[Any], label: Any) -> int:
    """Return the place of a label; ``True`` is not ``1``."""
    return next(i for i, each in enumerate(labels) if type(each) is type(label) and each == label)
