"""Kernel constraints in training: zeros stay zero, shared weights stay equal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lesiontk.compress.layers import Layer
from lesiontk.document import Record

CONSTRAINED = ("Conv2D", "Dense")
"""Layers whose kernel is constrained. Depthwise kernels have few weights, each of them
important."""


@dataclass(frozen=True, slots=True, eq=False)
class KernelStructure:
    """The structure of one kernel [..., out].

    `kept`, bool of the kernel's shape, is False where the weight is zero; `ties`, int of that
    shape, is the index of each weight's shared value, from 0.
    """

    kept: NDArray[np.bool_] | None = None
    ties: NDArray[np.int32] | None = None

    def apply(self, kernel: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the nearest kernel of this structure: means of shared weights, zeros elsewhere."""
        if self.kept is not None:
            kernel = kernel * self.kept
        if self.ties is not None:
            flat = self.ties.ravel()
            means = np.bincount(flat, kernel.ravel()) / np.maximum(np.bincount(flat), 1)
            kernel = means.astype(np.float32)[flat].reshape(kernel.shape)
        return kernel


def list_constrained(layers: Sequence[Layer]) -> tuple[str, ...]:
    """Return the layers whose kernels are compressed: all but the first and the logits.

    Those two are small, and the accuracy is most sensitive to them (Zhu & Gupta 2017,
    arXiv:1710.01878; Gale et al. 2019, arXiv:1902.09574).
    """
    names = [layer.name for layer in layers if layer.kind in CONSTRAINED and layer.name != "logits"]
    return tuple(names[1:])


def find_zeros(kernel: NDArray[np.float32]) -> KernelStructure:
    """Return the structure that keeps a kernel's zeros."""
    return KernelStructure(kept=kernel != 0)


def find_ties(kernel: NDArray[np.float32]) -> KernelStructure:
    """Return the structure that preserves zeros and equal weights within an output channel.

    Folding a BatchNormalization scales each output channel individually, so weights that were equal
    in the whole kernel are then equal only within each channel.
    """
    flat = kernel.reshape(-1, kernel.shape[-1])
    ties, first = np.empty(flat.shape, np.int32), 0
    for channel in range(flat.shape[1]):
        distinct, numbers = np.unique(flat[:, channel], return_inverse=True)
        ties[:, channel] = numbers.ravel() + first
        first += len(distinct)
    return KernelStructure(kept=kernel != 0, ties=ties.reshape(kernel.shape))


@dataclass(frozen=True, slots=True)
class KernelCounts(Record):
    """The numbers of weights of a layer's kernel, of zeros and of distinct values."""

    layer: str
    weights: int
    zeros: int
    values: int


def count_structure(kernels: Mapping[str, NDArray[np.float32]]) -> list[KernelCounts]:
    """Return the counts of each kernel."""
    return [
        KernelCounts(
            layer=name,
            weights=int(kernel.size),
            zeros=int((kernel == 0).sum()),
            values=int(np.unique(kernel).size),
        )
        for name, kernel in kernels.items()
    ]
