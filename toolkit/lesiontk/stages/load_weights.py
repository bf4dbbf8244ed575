"""Stage: weights that were trained elsewhere, for a model of the workspace.

A compressed network may recover where a GPU is that lesiontk cannot use, or in a user's own
training loop: it leaves as a ``.keras`` file and comes back as one, and what it is stays known.
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
from lesiontk.stage import Context, StageConfig, StageOutput
from lesiontk.stages.import_model import check_split
from lesiontk.stages.model_artefact import constrain_recalls, write_untrained
from lesiontk.technique import Technique, TechniqueInfo
from lesiontk.train.loop import predict_probabilities
from lesiontk.train.recall_constraint import NO_BIAS, fit_logit_bias, has_bias, raise_biases

logger = logging.getLogger(__name__)
TRAINED_BY = "trained_by"
"""In a file's description: how its weights were trained, as the trainer recorded it."""
Setting = bool | int | float | str | None


class LoadWeightsConfig(StageConfig):
    """Where the weights are."""

    file: str = Field(exclude=True, description=".keras, the model itself with other weights")

    @field_validator("file")
    @classmethod
    def _resolve(cls, file: str) -> str:
        return str(Path(file).resolve())


@dataclass(frozen=True, slots=True)
class LoadedWeights(Record):
    """The file of the weights, and how they were trained, as its trainer recorded it."""

    file: str
    trained_by: Mapping[str, Setting | tuple[Setting, ...]] = field(default_factory=dict)


class LoadWeightsStage(Technique):
    """Produces ``model.keras``: its parent's layers with the weights of a file.

    Recalls are kept as by a training (`train_model`). Weights of which it
    is not known what they were trained on are said to have seen the test images, maybe.
    """

    info: ClassVar[TechniqueInfo] = TechniqueInfo(
        name="load_weights",
        version=1,
        accepts={"model": "model", "images": "images"},
        config=LoadWeightsConfig,
        tools=("tensorflow", "tf_keras", "numpy"),
        trains=True,
        help="""Load into MODEL the weights of FILE: MODEL's own .keras file, trained elsewhere.

        What MODEL is stays known, so that its engines are compared with the network that it was
        made of. `lesiontk convert MODEL --to keras:float32` writes the file to be trained.""",
        argument="file",
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
        """Raise `DataError` if the file is of another network."""
        take_weights(load_model(model.file(MODEL_FILE)), Path(config.file), model.name)

    def describe(self, step: ModelStep) -> str:
        """Which file, and how its trainer says that it was trained."""
        loaded = step.read_change(LoadedWeights)
        orders = [
            f"{name} {', '.join(map(str, value)) if isinstance(value, tuple) else value}"
            for name, value in loaded.trained_by.items()
        ]
        return f"trained further elsewhere ({'; '.join([loaded.file, *orders])})"

    def run(
        self, parents: Mapping[str, Artefact], config: LoadWeightsConfig, context: Context
    ) -> StageOutput:
        images, file, parent = open_images(parents["images"]), Path(config.file), parents["model"]
        facts = parent.read_facts(ModelFacts)
        unknown = check_split(file, images)
        model = load_model(parent.file(MODEL_FILE))
        take_weights(model, file, parent.name)
        wanted = recalls_to_keep(facts, self.info.name)
        if wanted and not has_bias(model):
            logger.warning(NO_BIAS)
            wanted = {}
        shifts = keep_recalls(model, images, wanted) if wanted else []
        return write_untrained(
            model,
            images,
            parents["images"],
            context,
            derive_model(facts, self.info.name, read_weights(file), may_have_seen_test=unknown),
            constrain_recalls(images.labels, wanted, shifts),
        )


def read_weights(file: Path) -> LoadedWeights:
    """Return how a file's weights were trained, as far as its trainer recorded it.

    Raises `DataError` unless that is a mapping of names to numbers, texts, or lists of them.
    """
    spec = find_spec(file)
    stated = spec.extra.get(TRAINED_BY, {}) if spec else {}
    try:
        return LoadedWeights.from_document({"file": file.name, TRAINED_BY: stated})
    except DataError as error:
        raise DataError(
            f"{file.name} records its training as {stated!r}; expected names and numbers, texts or "
            "lists, as {'epochs': 9}."
        ) from error


def take_weights(model: Any, file: Path, name: str) -> None:
    """Give a model the weights of a file; `DataError` unless its layers have the same."""
    source = load_model(file)
    ours, theirs = (
        {weight.name: tuple(weight.shape) for weight in network.weights}
        for network in (model, source)
    )
    for weight in [*ours, *theirs]:
        if ours.get(weight) != theirs.get(weight):
            has, expected = (
                f"{weight} of {list(shapes[weight])}" if weight in shapes else f"no {weight}"
                for shapes in (theirs, ours)
            )
            raise DataError(
                f"{file.name} has {has}; expected {expected}, as {name} has it: train that model's "
                "file, and change no layer."
            )
    values = {weight.name: np.asarray(weight) for weight in source.weights}
    if not all(np.isfinite(value).all() for value in values.values()):
        raise DataError(f"{file.name} has weights that are no numbers; its training diverged.")
    for weight in model.weights:
        weight.assign(values[weight.name])


def keep_recalls(model: Any, images: ImageSet, wanted: Mapping[str, float]) -> list[float]:
    """Raise the biases that keep these recalls on validation; returns by how much, [C]."""
    rows = images.indices("validation")
    said = predict_probabilities(model, images.pixels, rows, 32)
    shifts = fit_logit_bias(images.targets[rows], said, images.labels, images.critical, wanted)
    if shifts.any():
        raise_biases(model, shifts)
    return [float(shift) for shift in shifts]
