"""Training a model whose kernels keep their structure; shared by sparsifying and clustering."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lesiontk.backends.keras_backend import MODEL_FILE, load_model
from lesiontk.compress.effect import measure_effect
from lesiontk.compress.keras_layers import HEAD
from lesiontk.compress.kernel_structure import KernelStructure, count_structure, make_holder
from lesiontk.data.images import ImageSet, write_rows
from lesiontk.frameworks import import_keras, import_tensorflow
from lesiontk.recipe import TrainSection
from lesiontk.records import Artefact
from lesiontk.stage import Context, StageOutput
from lesiontk.train.checkpoints import TrainingState
from lesiontk.train.lessons import Lessons
from lesiontk.train.loop import train_model
from lesiontk.train.outcome import write_outcome

KERNELS = "kernels.csv"
"""Layer, weights, zeros, different values."""

Arrays = dict[str, NDArray[Any]]
Structures = Mapping[str, KernelStructure]


def check_recovery(recover: TrainSection) -> None:
    """Raise `ValueError` for what only a training from the start may have."""
    if recover.grow or recover.head_epochs:
        raise ValueError("recover takes neither grow nor head_epochs: the model is trained")


def read_kernels(model: Any, names: tuple[str, ...]) -> dict[str, NDArray[np.float32]]:
    """Return layer -> its kernel."""
    return {name: model.get_layer(name).get_weights()[0] for name in names}


def keep_arrays(file: Path, make: Callable[[], Arrays]) -> Arrays:
    """Return the arrays of `file`, which `make` gives the first time; a resumed run reads them."""
    if not file.is_file():
        temporary = file.with_name("next.npz")
        with temporary.open("wb") as stream:
            np.savez_compressed(stream, **make())  # type: ignore[arg-type]
        temporary.replace(file)
    with np.load(file) as arrays:
        return dict(arrays)


def hold_kernels(model: Any, structures: Structures) -> Any:
    """Return a copy of the model whose kernels have these structures and keep them in training.

    Its layers compute as Keras' global policy says, the head in float32.
    """
    tf, keras = import_tensorflow(), import_keras()

    def clone(layer: Any) -> Any:
        config = layer.get_config()
        if layer.name not in HEAD:
            config.pop("dtype", None)  # the policy of today, which training may have set
        ours = type(layer).from_config(config)
        if layer.name in structures:
            ours.kernel_constraint = make_holder(tf, structures[layer.name])
        return ours

    held = keras.models.clone_model(model, clone_function=clone)
    for layer in model.layers:
        weights = layer.get_weights()
        if layer.name in structures:
            weights[0] = structures[layer.name].apply(weights[0])
        if weights:
            held.get_layer(layer.name).set_weights(weights)
    return held


def train_held(
    source: Path,
    structures: Structures,
    images: ImageSet,
    section: TrainSection,
    scratch: Path,
    context: Context,
    lessons: Lessons | None,
) -> tuple[Any, TrainingState]:
    """Train the model at `source` under the structures; returns it as a plain model."""
    held, state = train_model(
        lambda size: hold_kernels(load_model(source), structures),
        images,
        section,
        scratch,
        context.progress,
        lessons=lessons,
    )
    model = load_model(source)
    for layer in model.layers:
        weights = held.get_layer(layer.name).get_weights()
        if layer.name in structures:
            weights[0] = structures[layer.name].apply(weights[0])  # an average rounds
        if weights:
            layer.set_weights(weights)
    return model, state


def write_held(
    model: Any,
    names: tuple[str, ...],
    state: TrainingState,
    parents: Mapping[str, Artefact],
    images: ImageSet,
    context: Context,
    *,
    started: float,
    facts: Mapping[str, Any],
) -> StageOutput:
    """Write the model, a row for each kernel `names`, and what their structure changes."""
    rows = count_structure(read_kernels(model, names))
    write_rows(context.directory / KERNELS, rows, tuple(rows[0]))
    outcome = write_outcome(
        model,
        state,
        images,
        parents["images"],
        context,
        started=started,
        facts={"architecture": str(parents["model"].facts["architecture"]), **facts},
    )
    before, after = parents["model"].file(MODEL_FILE), context.directory / MODEL_FILE
    effect = measure_effect(before, after, images, context)
    return replace(outcome, facts={**outcome.facts, "effect": effect})
