"""The validation of a recipe before its steps are planned."""

from __future__ import annotations

from pathlib import Path

from lesiontk.calibration.draw import read_list
from lesiontk.calibration.observers import OBSERVERS
from lesiontk.data.augment import AUGMENTATIONS
from lesiontk.data.corruptions import check_corruptions
from lesiontk.data.enhance import check_enhancements
from lesiontk.data.sources import SOURCES
from lesiontk.data.tasks import load_task
from lesiontk.errors import UsageError
from lesiontk.evaluate.default_gates import check_gates_of_task
from lesiontk.models import ARCHITECTURES
from lesiontk.recipe import Recipe
from lesiontk.train.imbalance import choose_imbalance


def check_names(recipe: Recipe) -> None:
    """Raise `UsageError` for unknown names, and for keys that contradict each other."""
    if recipe.data.source != "auto":
        SOURCES.get(recipe.data.source)
    architecture = ARCHITECTURES.get(recipe.model.architecture)
    if recipe.imported is None and recipe.data.image_size < architecture.min_image_size:
        raise UsageError(
            f"data.image_size is {recipe.data.image_size}; {architecture.name} needs at least "
            f"{architecture.min_image_size} pixels."
        )
    split = recipe.data.split
    if split.folds and not split.fold:
        raise UsageError(
            f"data.split.folds is {split.folds}, without a fold; expected `lesiontk run` or "
            f"Workspace.cross_validate for all folds, or data.split.fold 1 to {split.folds} for "
            "one."
        )
    check_enhancements(recipe.data.enhance)
    check_corruptions(recipe.robustness.corruptions)
    for choice in recipe.train.imbalance:
        choose_imbalance(choice)
    if recipe.imported is None:
        _check_training(recipe)
    AUGMENTATIONS.get(recipe.train.augment)
    OBSERVERS.get(recipe.calibration.observer)
    if recipe.calibration.list is not None:
        read_list(recipe.calibration.list)


def _check_training(recipe: Recipe) -> None:
    train = recipe.train
    if train.head_epochs and recipe.model.weights == "none":
        raise UsageError(
            f"train.head_epochs is {train.head_epochs} and model.weights is none: the last layer "
            "would be trained on random features; expected pretrained weights, or head_epochs 0."
        )
    smallest = ARCHITECTURES.get(recipe.model.architecture).min_image_size
    if not train.grows_to(recipe.data.image_size, smallest):
        raise UsageError(
            f"train.grow is {list(train.grow)}; expected increasing sizes from {smallest} to below "
            f"data.image_size, {recipe.data.image_size}, and an epoch for each."
        )
    if train.head_epochs >= train.epochs:
        raise UsageError(
            f"train.head_epochs is {train.head_epochs} of {train.epochs} epochs; expected fewer, "
            "because the remaining epochs train all layers."
        )


def check_files(recipe: Recipe, *, gated: bool = True) -> None:
    """Raise as `check_names` for the inputs of training: task, initial weights, images' folder."""
    task = load_task(recipe.data.task)
    if recipe.imported is None:
        ARCHITECTURES.get(recipe.model.architecture).find_weights(recipe.model.weights)
    if gated:
        check_gates_of_task(recipe.gate, task.name, task.labels, task.positive)
    data = recipe.data
    if data.path is None and data.source != "synthetic":
        raise UsageError(
            f"recipe {recipe.name} requires images: specify --data DIR (or data.path). `lesiontk "
            "data fetch ham10000 --to DIR` downloads the official ones; `--set "
            "data.source=synthetic` uses synthetic ones."
        )
    if data.path is not None and not Path(data.path).is_dir():
        raise UsageError(f"data folder {data.path} does not exist or is not a folder.")
