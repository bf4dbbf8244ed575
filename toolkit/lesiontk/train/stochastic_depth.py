"""Stochastic depth: residual blocks are skipped at random while a network is trained."""

from __future__ import annotations

from typing import Any

from lesiontk.errors import UsageError
from lesiontk.system.frameworks import import_keras


def add_stochastic_depth(model: Any, rate: float) -> Any:
    """Return a copy of `model` whose residual blocks are skipped at random in training.

    The rate rises linearly with depth from 0 to `rate` at the last block, and what a kept block
    adds is divided by its chance of being kept (Huang et al., arXiv:1603.09382, sections 3 and 4).
    Inference, the layers' names and the weights are those of `model`. Raises `UsageError` for a
    network without a residual block.
    """
    if not rate:
        return model
    blocks = _list_blocks(model)
    if not blocks:
        raise UsageError(
            f"train.stochastic_depth is {rate:g}, but {model.name} has no residual block whose "
            "shortcut is its input; expected 0."
        )
    rates = {name: rate * (n + 1) / len(blocks) for n, name in enumerate(blocks)}
    keras = import_keras()

    class StochasticAdd(keras.layers.Dropout):  # type: ignore[misc,name-defined]
        """Adds a block's branch, for some images of a batch, to its shortcut."""

        def __init__(self, branch: int, **options: Any) -> None:
            super().__init__(noise_shape=(None, 1, 1, 1), **options)
            self.branch = branch

        def call(self, inputs: Any, training: Any = None) -> Any:
            return inputs[1 - self.branch] + super().call(inputs[self.branch], training=training)

    def copy(layer: Any) -> Any:
        config = layer.get_config()
        if layer.name not in rates:
            return layer.__class__.from_config(config)
        return StochasticAdd(
            blocks[layer.name], rate=rates[layer.name], name=layer.name, dtype=config["dtype"]
        )

    changed = keras.models.clone_model(model, clone_function=copy)
    changed.set_weights(model.get_weights())
    return changed


def _list_blocks(model: Any) -> dict[str, int]:
    """Return the additions of a tensor to what was computed from it alone: name -> which of the two
    inputs is the computed one, in the network's order."""
    blocks = {}
    for layer in model.layers:
        if type(layer) is not import_keras().layers.Add or len(layer.input) != 2:
            continue
        sources = [tensor.node.layer for tensor in layer.input]
        for branch in (0, 1):
            if _reaches(sources[branch], sources[1 - branch]):
                blocks[layer.name] = branch
    return blocks


def _reaches(layer: Any, earlier: Any) -> bool:
    """Return whether `layer` was computed from `earlier`."""
    waiting, seen = [layer], set()
    while waiting:
        current = waiting.pop()
        if current is earlier:
            return layer is not earlier
        if id(current) in seen:
            continue
        seen.add(id(current))
        waiting += [parent.layer for node in current.inbound_nodes for parent in node.parent_nodes]
    return False
