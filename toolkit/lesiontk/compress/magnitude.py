"""Magnitude pruning of single weights.

Patterns: ``unstructured`` (any weight), ``2:4`` (two of four consecutive input channels of one
position, as NVIDIA's sparse tensor cores require, arXiv:2104.08378), ``block`` (blocks of weights
are kept or zeroed together). None of them makes a dense kernel faster; the compressed file is
smaller.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lesiontk.errors import DataError

Pattern = Literal["unstructured", "2:4", "block"]


def choose_kept(
    kernel: NDArray[np.float32], sparsity: float, pattern: Pattern, block: tuple[int, int] = (1, 4)
) -> NDArray[np.bool_]:
    """Return the mask of a kernel [..., in, out], of its shape: True where the weight is kept.

    The largest magnitudes stay, as many as `sparsity` leaves; with ``2:4`` the two largest of each
    four inputs. `block` is (inputs, outputs); blocks are ranked by their mean magnitude. Raises
    `DataError` if `fits_pattern` is False.
    """
    if not fits_pattern(kernel, pattern, block):
        raise DataError(
            f"a kernel of shape {list(kernel.shape)} has {kernel.shape[-2]} inputs; expected a "
            f"multiple of {inputs_of(pattern, block)} for the pattern {pattern}."
        )
    magnitude = np.abs(kernel.reshape(-1, kernel.shape[-1]))  # [positions * in, out]
    inputs, outputs = magnitude.shape
    if pattern == "2:4":
        fours = magnitude.reshape(-1, 4, outputs)
        rank = np.argsort(np.argsort(-fours, axis=1, kind="stable"), axis=1)
        return np.asarray(rank < 2).reshape(kernel.shape)
    high, wide = block if pattern == "block" else (1, 1)
    missing = -outputs % wide  # padding of the last block of a row is excluded from its mean
    padded = np.pad(magnitude, ((0, 0), (0, missing)), constant_values=np.nan)
    blocks = padded.reshape(inputs // high, high, -1, wide)
    means = np.nanmean(blocks, axis=(1, 3))
    keep = max(round(means.size * (1 - sparsity)), 1)
    kept = np.zeros(means.size, bool)
    kept[np.argsort(-means, axis=None, kind="stable")[:keep]] = True
    spread = kept.reshape(means.shape).repeat(high, axis=0).repeat(wide, axis=1)
    return spread[:, :outputs].reshape(kernel.shape)


def inputs_of(pattern: Pattern, block: tuple[int, int]) -> int:
    """Return the number of consecutive inputs in a group of a pattern."""
    return {"unstructured": 1, "2:4": 4, "block": block[0]}[pattern]


def fits_pattern(kernel: NDArray[np.float32], pattern: Pattern, block: tuple[int, int]) -> bool:
    """Return whether a kernel [..., in, out] can have a pattern: no group spans two positions.

    The kernel is flattened to [positions * in, out].
    """
    return int(kernel.shape[-2]) % inputs_of(pattern, block) == 0


def plan_sparsity(final: float, rounds: int) -> tuple[float, ...]:
    """Return the sparsity of each round: ``s * (1 - (1 - r / R)**3)`` (Zhu & Gupta, equation 1)."""
    return tuple(final * (1 - (1 - number / rounds) ** 3) for number in range(1, rounds + 1))
