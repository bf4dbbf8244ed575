"""Hard swish, ``x relu6(x + 3) / 6``: four layers in Keras 2, one operator in an engine."""

from __future__ import annotations

from collections.abc import Sequence

from lesiontk.compress.layers import Layer, find_readers

GATE = ("Rescaling", "ReLU", "Rescaling")
"""The layers between the gated tensor and its Multiply."""


def find_hard_swish(layers: Sequence[Layer]) -> set[str]:
    """Return the layers without a tensor in an engine: those between x and the product with it."""
    readers, known = find_readers(layers), {layer.name: layer for layer in layers}
    inner: set[str] = set()
    for layer in layers:
        if layer.kind != "Multiply" or len(layer.inputs) != 2:
            continue
        for name, gated in (layer.inputs, layer.inputs[::-1]):
            chain = []
            for kind in reversed(GATE):
                step = known[name]
                if step.kind != kind or len(readers[name]) != 1 or step.unusual:
                    break
                chain.append(name)
                (name,) = step.inputs
            if len(chain) == len(GATE) and name == gated:
                inner.update(chain)
    return inner
