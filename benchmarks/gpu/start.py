"""The file that a training in PyTorch starts from; the one module here that needs TensorFlow."""

from __future__ import annotations

from pathlib import Path

from lesiontk.backends.keras.backend import save_model
from lesiontk.compress.model_history import ModelOrigin
from lesiontk.data.images import PreparedImages, open_images
from lesiontk.models import ARCHITECTURES
from lesiontk.models.architecture import build_model
from lesiontk.recipe import Recipe
from lesiontk.records import Artefact
from lesiontk.stages.model_artefact import describe_model
from lesiontk.store.manifest import read_manifest
from lesiontk.system.frameworks import import_keras


def write_start(recipe: Recipe, folder: Path, out: Path) -> None:
    """Write a recipe's network with its initial weights, for the images of an ``images-…`` folder.

    Raises the errors of `Architecture.find_weights` and of a recipe that does not fit the images.
    """
    artefact = Artefact(folder, read_manifest(folder))
    images, prepared = open_images(artefact), artefact.read_facts(PreparedImages)
    architecture = ARCHITECTURES.get(recipe.model.architecture)
    import_keras().utils.set_random_seed(recipe.train.seed)
    model = build_model(
        architecture,
        image_size=images.preprocessing.image_size,
        classes=len(images.labels),
        weights=recipe.model.weights,
        dropout=recipe.model.dropout,
    )
    if recipe.model.weights == "none" and architecture.initialize is not None:
        architecture.initialize(model)
    origin = ModelOrigin(stage="train", architecture=architecture.name, change=None)
    save_model(model, describe_model(images, prepared, recipe.name, origin), out)
