"""Channels to remove, and networks in which they say nothing."""

from __future__ import annotations

from typing import Any

import numpy as np

from lesiontk.compress.channel_graph import ChannelGraph


def silence(model: Any, graph: ChannelGraph, channels: frozenset[int]) -> None:
    """Make every value of these channels zero, wherever they are made or shifted."""
    for layer in graph.layers:
        keras_layer = model.get_layer(layer.name)
        weights = keras_layer.get_weights()
        if not weights:
            continue
        lost = np.isin(graph.outputs[layer.name], list(channels))
        if layer.kind == "BatchNormalization":
            gamma, beta, *rest = weights
            gamma[lost], beta[lost] = 0, 0
            keras_layer.set_weights([gamma, beta, *rest])
        elif layer.kind == "DepthwiseConv2D":
            kernel, *bias = weights
            for values in bias:
                values[lost] = 0
            keras_layer.set_weights([kernel, *bias])
        else:
            weights[-2 if layer.has_bias else -1][..., lost] = 0
            if layer.has_bias:
                weights[-1][lost] = 0
            keras_layer.set_weights(weights)


def draw_channels(graph: ChannelGraph, seed: int, share: float = 0.4) -> frozenset[int]:
    """Channels to remove, of each family all but one at most."""
    generator = np.random.default_rng(seed)
    drawn: set[int] = set()
    for family in graph.families():
        count = min(len(family) - 1, int(share * len(family) + generator.random()))
        drawn |= {int(channel) for channel in generator.permutation(family)[:count]}
    return frozenset(drawn)
