"""Keras access for the pruning criteria: kernels, following normalizations, gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lesiontk.compress.importance import ChannelStatistics
from lesiontk.compress.layers import ACTIVATIONS, PRODUCING, Layer, find_readers
from lesiontk.progress import NoProgress, Progress
from lesiontk.system.frameworks import import_keras, import_tensorflow

SHAPING = ("BatchNormalization", *ACTIVATIONS)
BATCH = 16


def collect_channel_statistics(
    model: Any,
    layers: Sequence[Layer],
    images: NDArray[np.uint8] | None = None,
    targets: NDArray[np.int64] | None = None,
    progress: Progress | None = None,
) -> dict[str, ChannelStatistics]:
    """Return the statistics for the criteria of each layer whose channels can be removed.

    With `images` [N, S, S, 3] and their `targets` [N], the first-order Taylor terms of the
    cross-entropy are measured, too.
    """
    chains = follow_chains(layers)
    terms: dict[str, NDArray[np.float32]] = {}
    if images is not None and targets is not None:
        activation_layers = {name: chain[-1] for name, chain in chains.items()}
        terms = _measure_taylor(model, activation_layers, images, targets, progress or NoProgress())
    kinds = {layer.name: layer.kind for layer in layers}
    found = {}
    for name, chain in chains.items():
        layer = model.get_layer(name)
        pointwise = 1 if kinds[name] == "SeparableConv2D" else 0
        norms = [other for other in chain if kinds[other] == "BatchNormalization"]
        scaled = [n for n in norms if model.get_layer(n).scale]
        scale = model.get_layer(scaled[0]).get_weights()[0] if scaled else None
        found[name] = ChannelStatistics(
            name, layer.get_weights()[pointwise], scale, terms.get(name)
        )
    return found


def follow_chains(layers: Sequence[Layer]) -> dict[str, tuple[str, ...]]:
    """Return producing layer -> itself, and the normalization and activation that only it feeds.

    The output of the last is what other layers read.
    """
    readers = find_readers(layers)
    chains = {}
    for layer in layers:
        if layer.kind not in PRODUCING or layer.name == "logits":
            continue
        chain = [layer.name]
        while len(after := readers.get(chain[-1], [])) == 1 and after[0].kind in SHAPING:
            chain.append(after[0].name)
        chains[layer.name] = tuple(chain)
    return chains


def _measure_taylor(
    model: Any,
    activation_layers: dict[str, str],
    images: NDArray[np.uint8],
    targets: NDArray[np.int64],
    progress: Progress,
) -> dict[str, NDArray[np.float32]]:
    """Return layer -> the mean over images of |sum over places of activation * gradient|, [C]."""
    tf, keras = import_tensorflow(), import_keras()
    names = list(activation_layers)
    outputs = [model.get_layer(activation_layers[name]).output for name in names]
    parts = keras.Model(model.input, [*outputs, model.get_layer("logits").output])

    @tf.function  # type: ignore[untyped-decorator]
    def terms(pixels: Any, labels: Any) -> Any:
        image = tf.cast(pixels, tf.float32)
        with tf.GradientTape() as tape:
            tape.watch(image)  # otherwise nothing is recorded if all weights are frozen
            *features, logits = parts(image, training=False)
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
        gradients = tape.gradient(losses, features)
        found = []
        for value, gradient in zip(features, gradients, strict=True):
            product = tf.cast(value, tf.float32) * tf.cast(gradient, tf.float32)
            summed = tf.reduce_sum(product, axis=list(range(1, len(value.shape) - 1)))
            found.append(tf.reduce_sum(tf.abs(summed), axis=0))
        return found

    totals: list[Any] = [0.0] * len(names)
    with progress.task("measuring Taylor terms", len(images)) as advance:
        for start in range(0, len(images), BATCH):
            part = slice(start, start + BATCH)
            for index, value in enumerate(terms(images[part], targets[part])):
                totals[index] = totals[index] + np.asarray(value)
            advance(len(images[part]))
    return {n: (t / len(images)).astype(np.float32) for n, t in zip(names, totals, strict=True)}
