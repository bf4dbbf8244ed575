"""Importance criteria of channels, from weights or gradients. Plain NumPy.

A criterion scores the output channels of one layer. The score of a channel that several layers
produce (a residual stream) is the sum of theirs. Each layer's scores are divided by their root mean
square to be comparable (Molchanov et al., arXiv:1611.06440, section 2.2).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lesiontk.compress.channel_graph import ChannelGraph
from lesiontk.errors import DataError
from lesiontk.registry import Registry

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ChannelStatistics:
    """The input of a criterion, for one layer with C output channels.

    `kernel` is [..., C]; `scale` [C] the factor of the following normalization, or None without
    one; `taylor` [C] the mean over images of |sum of activation * gradient|, or None without
    images.
    """

    layer: str
    kernel: NDArray[np.float32]
    scale: NDArray[np.float32] | None = None
    taylor: NDArray[np.float32] | None = None


Criterion = Callable[[ChannelStatistics], Floats | None]
"""Returns scores [C]; None for a layer without the statistics of the criterion."""
CRITERIA: Registry[Criterion] = Registry("pruning criterion")
CRITERIA.register("l1", "lesiontk.compress.importance:score_l1")
CRITERIA.register("l2", "lesiontk.compress.importance:score_l2")
CRITERIA.register("geometric_median", "lesiontk.compress.importance:score_geometric_median")
CRITERIA.register("batchnorm_scale", "lesiontk.compress.importance:score_batchnorm_scale")
CRITERIA.register("taylor", "lesiontk.compress.importance:score_taylor")


def score_l1(channel_statistics: ChannelStatistics) -> Floats:
    """Return the sum of magnitudes of each filter, [C] (Li et al., arXiv:1608.08710)."""
    return np.asarray(np.abs(_filters(channel_statistics)).sum(axis=1))


def score_l2(channel_statistics: ChannelStatistics) -> Floats:
    """Return the Euclidean length of each filter, [C]."""
    return np.asarray(np.sqrt((_filters(channel_statistics) ** 2).sum(axis=1)))


def score_geometric_median(channel_statistics: ChannelStatistics) -> Floats:
    """Return each filter's summed distance to the others, [C] (He et al., arXiv:1811.00250).

    Filters near the geometric median can be replaced by the others.
    """
    filters = _filters(channel_statistics)
    squares = (filters**2).sum(axis=1)
    distances = squares[:, np.newaxis] + squares - 2 * filters @ filters.T
    return np.asarray(np.sqrt(np.maximum(distances, 0)).sum(axis=1))


def score_batchnorm_scale(channel_statistics: ChannelStatistics) -> Floats | None:
    """Return the magnitude of the normalization's factor, [C] (Liu et al., arXiv:1708.06519).

    None for a layer without a following normalization; its channels are not ranked.
    """
    if channel_statistics.scale is None:
        return None
    return np.abs(channel_statistics.scale).astype(np.float64)


def score_taylor(channel_statistics: ChannelStatistics) -> Floats:
    """Return the first-order change of the loss, [C] (arXiv:1611.06440, eq. 8)."""
    if channel_statistics.taylor is None:
        raise DataError("the criterion taylor needs calibration images; got none.")
    return np.abs(channel_statistics.taylor).astype(np.float64)


def _filters(channel_statistics: ChannelStatistics) -> Floats:
    """Return float64 [C, weights of a filter]."""
    kernel = np.asarray(channel_statistics.kernel, np.float64)
    return kernel.reshape(-1, kernel.shape[-1]).T


def score_channels(
    graph: ChannelGraph, channel_statistics: Mapping[str, ChannelStatistics], criterion: str
) -> dict[int, float]:
    """Return removable channel -> score; a higher score is more important.

    A channel is left out, and stays, if the criterion scores none of its layers. Raises `DataError`
    if it scores none at all.
    """
    score, producers = CRITERIA.get(criterion), graph.producers()
    producing = dict.fromkeys(layer for pairs in producers.values() for layer, _ in pairs)
    raw = {layer: score(channel_statistics[layer]) for layer in producing}
    scores = {
        layer: values / max(float(np.sqrt((values**2).mean())), 1e-30)
        for layer, values in raw.items()
        if values is not None
    }
    totals = {}
    for channel, pairs in producers.items():
        parts = [float(scores[layer][index]) for layer, index in pairs if layer in scores]
        if parts:
            totals[channel] = sum(parts)
    if producers and not totals:
        raise DataError(
            f"the criterion {criterion} ranks no channel: none of the layers "
            f"{', '.join(producing)} alone feeds a BatchNormalization with a scale; expected "
            "another criterion, such as taylor."
        )
    return totals
