"""Stage: weights trained elsewhere, for a model of the workspace.

A compressed network can be fine-tuned on a GPU that lesiontk cannot use, or in a user's own
training loop: it is exported as a ``.keras`` file and its weights are loaded from one, with its
history preserved.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from pydantic import Field, field_validator

from lesiontk.backends.keras.backend import find_spec, load_model
from lesiontk.compress.model_history import derive_model, recalls_to_keep
from lesiontk.data.images import ImageSet, open_images
from lesiontk.document import Record
from lesiontk.errors import DataError
from lesiontk.files.hashing import hash_file
from lesiontk.records import MODEL_FILE, Artefact, ModelFacts, ModelStep
from lesiontk.stage import READING, Context, StageConfig, StageOutput
from lesiontk.stages.import_model import check_split
from lesiontk.stages.model_artefact import constrain_recalls, write_untrained
from lesiontk.technique import Technique, TechniqueInfo
from lesiontk.train.loop import predict_probabilities
from lesiontk.train.recall_constraint import NO_BIAS, fit_logit_bias, has_bias, raise_biases

logger = logging.getLogger(__name__)
TRAINED_BY = "trained_by"
"""The key in a file's description with the trainer's record of its training."""
Setting = bool | int | float | str | None


class LoadWeightsConfig(StageConfig):
    """The file of the weights."""

    file: str = Field(exclude=True, description="a .keras file of the model with other weights")

    @field_validator("file")
    @classmethod
    def _resolve(cls, file: str) -> str:
        return str(Path(file).resolve())


@dataclass(frozen=True, slots=True)
class LoadedWeights(Record):
    """The file of the weights, and the trainer's record of its training."""

    file: str
    trained_by: Mapping[str, Setting | tuple[Setting, ...]] = field(default_factory=dict)


class LoadWeightsStage(Technique):
    """Produces ``model.keras``: its parent's layers with the weights of a file.

    The recall constraint applies as in training (`train_model`). Weights whose training images are
    unknown are marked as possibly trained on the test images.
    """

    info: ClassVar[TechniqueInfo] = TechniqueInfo(
        name="load_weights",
        version=1,
        accepts={"model": "model", "images": "images"},
        config=LoadWeightsConfig,
        tools=("tensorflow", "tf_keras", "numpy"),
        trains=True,
        help="""Load into MODEL the weights of FILE: MODEL's own .keras file, trained elsewhere.

        Its history is preserved, so its engines are compared with the original network.
        `lesiontk convert MODEL --to keras:float32` writes the file to train.""",
        argument="file",
        weights=("file",),
        needs=READING,
    )

    def check(self, config: LoadWeightsConfig) -> None:
        """Raise `DataError` if the file is not there."""
        if not Path(config.file).is_file():
            raise DataError(f"load_weights.file {config.file} does not exist.")

    def external_inputs(self, config: LoadWeightsConfig) -> dict[str, str]:
        """The hash of the file."""
        path = Path(config.file)
        return {"weights": hash_file(path)} if path.is_file() else {}

    def check_model(self, model: Artefact, config: LoadWeightsConfig) -> None:
        """Raise `DataError` if the file contains another network."""
        copy_weights(load_model(model.file(MODEL_FILE)), Path(config.file), model.name)

    def describe(self, step: ModelStep) -> str:
        """Return the file and the record of its training, as a sentence."""
        loaded = step.read_change(LoadedWeights)
        settings = [
            f"{name} {', '.join(map(str, value)) if isinstance(value, tuple) else value}"
            for name, value in loaded.trained_by.items()
        ]
        return f"trained further elsewhere ({'; '.join([loaded.file, *settings])})"

    def run(
        self, parents: Mapping[str, Artefact], config: LoadWeightsConfig, context: Context
    ) -> StageOutput:
        images, file, parent = open_images(parents["images"]), Path(config.file), parents["model"]
        facts = parent.read_facts(ModelFacts)
        unknown = check_split(file, images)
        model = load_model(parent.file(MODEL_FILE))
        copy_weights(model, file, parent.name)
        required = recalls_to_keep(facts, self.info.name)
        if required and not has_bias(model):
            logger.warning(NO_BIAS)
            required = {}
        shifts = raise_recalls(model, images, required) if required else []
        return write_untrained(
            model,
            images,
            parents["images"],
            context,
            derive_model(facts, self.info.name, read_weights(file), may_have_seen_test=unknown),
            constrain_recalls(images.labels, required, shifts),
        )


def read_weights(file: Path) -> LoadedWeights:
    """Return the record of a file's training, if its trainer wrote one.

    Raises `DataError` unless it is a mapping of names to numbers, texts, or lists of them.
    """
    spec = find_spec(file)
    stated = spec.extra.get(TRAINED_BY, {}) if spec else {}
    try:
        return LoadedWeights.from_document({"file": file.name, TRAINED_BY: stated})
    except DataError as error:
        raise DataError(
            f"{file.name} records its training as {stated!r}; expected names and numbers, texts or "
            f"lists, such as {{'epochs': 9}}."
        ) from error


def copy_weights(model: Any, file: Path, name: str) -> None:
    """Copy the weights of a file into a model. Raises `DataError` unless the layers match."""
    source = load_model(file)
    ours, file_shapes = (
        {weight.name: tuple(weight.shape) for weight in network.weights}
        for network in (model, source)
    )
    for weight in [*ours, *file_shapes]:
        if ours.get(weight) != file_shapes.get(weight):
            has, expected = (
                f"{weight} of {list(shapes[weight])}" if weight in shapes else f"no {weight}"
                for shapes in (file_shapes, ours)
            )
            raise DataError(
                f"{file.name} has {has}; expected {expected}, as in {name}: train that model's "
                "file without changing its layers."
            )
    values = {weight.name: np.asarray(weight) for weight in source.weights}
    if not all(np.isfinite(value).all() for value in values.values()):
        raise DataError(f"{file.name} has weights that are not finite; its training diverged.")
    for weight in model.weights:
        weight.assign(values[weight.name])


def raise_recalls(model: Any, images: ImageSet, required: Mapping[str, float]) -> list[float]:
    """Raise biases to keep these recalls on validation, and return the changes, [C]."""
    rows = images.indices("validation")
    probabilities = predict_probabilities(model, images.pixels, rows, 32)
    shifts = fit_logit_bias(
        images.targets[rows], probabilities, images.labels, images.critical, required
    )
    if shifts.any():
        raise_biases(model, shifts)
    return [float(shift) for shift in shifts]
