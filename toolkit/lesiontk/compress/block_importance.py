"""Keras access for removing residual blocks: the outputs without one, and the network."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lesiontk.compress.keras_layers import call_copy, read_layers, rebuild_model
from lesiontk.compress.layers import Layer
from lesiontk.compress.residual_blocks import ResidualBlock, shorten
from lesiontk.progress import NoProgress, Progress
from lesiontk.system.frameworks import import_keras

BATCH = 32
LEAST = 1e-7
"""The lowest probability that counts, so that divergences stay finite."""


def remove_blocks(model: Any, removed: Collection[ResidualBlock]) -> Any:
    """Return a copy of the model without these blocks; the other layers have the same weights."""
    layers = shorten(read_layers(model), removed)
    return rebuild_model(model, layers, lambda _, layer, inputs: call_copy(layer, inputs))


def measure_importance(
    model: Any,
    blocks: Sequence[ResidualBlock],
    images: NDArray[np.uint8],
    progress: Progress | None = None,
) -> tuple[float, ...]:
    """Return for each block how far the probabilities are from the model's without it.

    It is the mean Kullback-Leibler divergence over the images [N, S, S, 3]; no label is read.
    """
    gated, gates = _add_gates(model, blocks)
    whole = _predict(gated, images)
    divergences = []
    with (progress or NoProgress()).task("measuring blocks", len(blocks)) as advance:
        for gate in gates:
            gate.assign(0.0)
            without = _predict(gated, images)
            gate.assign(1.0)
            divergences.append(float((whole * np.log(whole / without)).sum(axis=1).mean()))
            advance(1)
    return tuple(divergences)


def _predict(model: Any, images: NDArray[np.uint8]) -> NDArray[np.float64]:
    parts = [
        np.asarray(model.predict_on_batch(images[start : start + BATCH].astype(np.float32)))
        for start in range(0, len(images), BATCH)
    ]
    return np.clip(np.concatenate(parts).astype(np.float64), LEAST, None)


def _add_gates(model: Any, blocks: Sequence[ResidualBlock]) -> tuple[Any, list[Any]]:
    """Return a copy of the model, and a variable for each block by which its branch is multiplied.

    One traced model measures all blocks.
    """
    keras = import_keras()
    shortcuts = {block.add: block.shortcut for block in blocks}
    gates: dict[str, Any] = {}

    class GatedAdd(keras.layers.Layer):  # type: ignore[misc,name-defined]
        """Adds a branch, multiplied by its gate, to a shortcut."""

        def build(self, _: Any) -> None:
            self.gate = self.add_weight("gate", (), initializer="ones", trainable=False)

        def call(self, inputs: Any) -> Any:
            shortcut, branch = inputs
            return shortcut + branch * keras.backend.cast(self.gate, branch.dtype)

    def call(described: Layer, layer: Any, inputs: Any) -> Any:
        if described.name in shortcuts:
            first = described.inputs[0] == shortcuts[described.name]
            gated = GatedAdd(name=layer.name)
            output = gated(inputs if first else inputs[::-1])
            gates[layer.name] = gated.gate
            return output
        return call_copy(layer, inputs)

    rebuilt = rebuild_model(model, read_layers(model), call)
    return rebuilt, [gates[block.add] for block in blocks]
