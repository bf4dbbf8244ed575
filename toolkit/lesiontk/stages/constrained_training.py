"""Training of a model with kernel constraints, for sparsifying and clustering."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lesiontk.backends.keras.backend import load_model
from lesiontk.compress.footprint import measure_footprint
from lesiontk.compress.keras_layers import (
    config_without_dtype,
    copy_model,
    make_kernel_constraint,
    read_layers,
)
from lesiontk.compress.kernel_constraint import (
    KernelCounts,
    KernelStructure,
    count_structure,
    list_constrained,
)
from lesiontk.compress.model_history import derive_model, recalls_to_keep
from lesiontk.data.images import open_images
from lesiontk.document import Record, write_table
from lesiontk.recipe import TrainSection
from lesiontk.records import MODEL_FILE, Artefact, ModelFacts
from lesiontk.stage import Context, StageOutput
from lesiontk.stages.model_artefact import write_outcome
from lesiontk.stages.parent_predictions import DistillRule, read_soft_targets
from lesiontk.train.checkpoints import TrainingState
from lesiontk.train.loop import train_model

KERNELS = "kernels.csv"
"""Layer, weights, zeros, distinct values."""

Arrays = dict[str, NDArray[Any]]
Structures = Mapping[str, KernelStructure]


def check_recovery(recover: TrainSection) -> None:
    """Raise `ValueError` for keys that only training from scratch has."""
    if recover.grow or recover.head_epochs:
        raise ValueError(
            "recover accepts neither grow nor head_epochs, because the model is already trained"
        )


def read_kernels(model: Any, names: tuple[str, ...]) -> dict[str, NDArray[np.float32]]:
    """Return layer -> its kernel."""
    return {name: model.get_layer(name).get_weights()[0] for name in names}


def keep_arrays(file: Path, make: Callable[[], Arrays]) -> Arrays:
    """Return the arrays of `file`; `make` computes them the first time, a resumed run reads
    them."""
    if not file.is_file():
        temporary = file.with_name("next.npz")
        with temporary.open("wb") as stream:
            np.savez_compressed(stream, **make())  # type: ignore[arg-type]
        temporary.replace(file)
    with np.load(file) as arrays:
        return dict(arrays)


class ConstrainedTraining:
    """The training of a model under kernel constraints, common to the stages.

    `model` is the parent's, and after `train` the trained one; `names` are the constrained layers.
    """

    def __init__(
        self,
        stage: str,
        parents: Mapping[str, Artefact],
        distill: DistillRule | None,
        context: Context,
    ) -> None:
        self._started, self._stage = time.perf_counter(), stage
        self._parents, self._context = parents, context
        self._images = open_images(parents["images"])
        self._parent = parents["model"].read_facts(ModelFacts)
        self.model = load_model(parents["model"].file(MODEL_FILE))
        self.names = list_constrained(read_layers(self.model))
        self._lessons = read_soft_targets(parents, distill)
        self._state: TrainingState | None = None

    @property
    def kernels(self) -> dict[str, NDArray[np.float32]]:
        """Layer -> its current kernel."""
        return read_kernels(self.model, self.names)

    def train(self, structures: Structures, section: TrainSection, scratch: Path) -> None:
        """Train the model under the constraints; `scratch` contains the checkpoints."""
        held, self._state = train_model(
            lambda size: constrain_kernels(self.model, structures, size),
            self._images,
            section,
            scratch,
            self._context.progress,
            soft_targets=self._lessons,
            keep_recalls=recalls_to_keep(self._parent, self._stage),
        )
        for layer in self.model.layers:
            weights = held.get_layer(layer.name).get_weights()
            if layer.name in structures:
                weights[0] = structures[layer.name].apply(weights[0])  # averages round
            if weights:
                layer.set_weights(weights)

    def write(self, change: Record) -> StageOutput:
        """Write the model, a row for each kernel, and the footprint."""
        if self._state is None:
            raise RuntimeError("the model was not trained")
        context = self._context
        write_table(context.directory / KERNELS, KernelCounts, count_structure(self.kernels))
        outcome = write_outcome(
            self.model,
            self._state,
            self._images,
            self._parents["images"],
            context,
            derive_model(self._parent, self._stage, change),
            started=self._started,
        )
        before = self._parents["model"].file(MODEL_FILE)
        after = context.directory / MODEL_FILE
        footprint = measure_footprint(before, after, self._images, context)
        return replace(outcome, measured={"footprint": footprint.to_document()})


def constrain_kernels(model: Any, structures: Structures, size: int | None) -> Any:
    """Return a copy of the model whose kernels have these structures and preserve them in training.

    Its input size is `size` pixels, or any if it is None.
    """

    def clone(layer: Any) -> Any:
        ours = type(layer).from_config(config_without_dtype(layer))
        if layer.name in structures:
            ours.kernel_constraint = make_kernel_constraint(structures[layer.name])
        return ours

    held = copy_model(model, size, clone)
    for name, structure in structures.items():
        kernel, *rest = held.get_layer(name).get_weights()
        held.get_layer(name).set_weights([structure.apply(kernel), *rest])
    return held
