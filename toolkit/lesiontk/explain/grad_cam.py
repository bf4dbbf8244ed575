"""Grad-CAM (Selvaraju et al., arXiv:1610.02391): where a feature map supports a class.

This is the mathematics; `keras_grad_cam` gets features and gradients from a network.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]


def compute_heatmaps(features: FloatArray, gradients: FloatArray, size: int) -> FloatArray:
    """Return float32 [N, size, size] in 0..1, the heatmap of one class for each image.

    `features` [N, h, w, K] are the maps of a layer, `gradients` of the same shape those of the
    class's logit by them. A heatmap's maximum is 1, or 0 if nothing supports the class. Values of
    different heatmaps are not comparable.
    """
    return _scale_to_peak(upsample_maps(combine_maps(features, gradients), size))


def combine_maps(features: FloatArray, gradients: FloatArray) -> FloatArray:
    """Return [N, h, w]: the positive part of the maps' sum weighted by their mean gradients.

    Equations 1 and 2 of the paper: ``alpha_k = mean_ij dy/dA_ij^k`` and
    ``L = ReLU(sum_k alpha_k A^k)``.
    """
    if features.ndim != 4 or features.shape != gradients.shape:
        raise ValueError(
            f"features are {features.shape}, gradients {gradients.shape}; expected [N, h, w, K] of "
            "both"
        )
    weights = gradients.mean(axis=(1, 2))
    heat: FloatArray = np.einsum("nhwk,nk->nhw", features, weights)
    return heat.clip(min=0)


def upsample_maps(maps: FloatArray, size: int) -> FloatArray:
    """Return [N, size, size] from [N, h, w], bilinear between the centres of the cells.

    Values are constant outside of the outermost centres.
    """
    rows, columns = (_interpolation(cells, size) for cells in maps.shape[1:])
    pixels: FloatArray = np.einsum("ih,nhw,jw->nij", rows, maps, columns)
    return pixels


def _interpolation(cells: int, size: int) -> FloatArray:
    """Return [size, cells], the share of each cell in each pixel; rows sum to 1."""
    centres = np.clip((np.arange(size) + 0.5) * cells / size - 0.5, 0, cells - 1)
    distances = np.abs(centres[:, np.newaxis] - np.arange(cells)).astype(np.float32)
    return (1 - distances).clip(min=0)


def _scale_to_peak(maps: FloatArray) -> FloatArray:
    peaks = maps.max(axis=(1, 2), keepdims=True)
    scaled: FloatArray = np.divide(maps, peaks, out=np.zeros_like(maps), where=peaks > 0)
    return scaled
