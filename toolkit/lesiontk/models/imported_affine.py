"""Scaling, offset and reordering of channels in a user's model, merged lazily.

``x / 255``, ``x - mean``, ``preprocess_input``, Rescaling and Normalization all multiply and add
constants; Caffe's pixels are blue, green, red. A chain of them is one step, most of which can be
folded into the next convolution.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Affine:
    """The values ``tensor[..., order] * scale + offset`` of a Keras tensor [N, ..., C].

    `scale` and `offset` broadcast against one image [..., len(order)]; `name` is that of the layer
    that computes them.
    """

    tensor: Any
    name: str
    order: tuple[int, ...]
    scale: Values
    offset: Values

    @classmethod
    def of(cls, tensor: Any, name: str) -> Affine:
        """Return the identity of a tensor."""
        order = tuple(range(tensor.shape[-1]))
        return cls(tensor, name, order, np.ones(()), np.zeros(()))

    def then(self, scale: Values | float, offset: Values | float) -> Affine:
        """Return ``self * scale + offset``."""
        factor = np.asarray(scale, np.float64)
        return replace(self, scale=self.scale * factor, offset=self.offset * factor + offset)

    def take(self, order: Sequence[int]) -> Affine:
        """Return ``self[..., order]``."""
        return replace(
            self,
            order=tuple(self.order[index] for index in order),
            scale=_take(self.scale, order),
            offset=_take(self.offset, order),
        )

    @property
    def channels(self) -> int:
        return len(self.order)

    @property
    def is_ordered(self) -> bool:
        """Whether the channel order is unchanged."""
        return self.order == tuple(range(self.tensor.shape[-1]))

    @property
    def is_one_scale(self) -> bool:
        return bool(np.ptp(self.scale) == 0)

    @property
    def is_identity(self) -> bool:
        return self.is_ordered and bool((self.scale == 1).all() and (self.offset == 0).all())

    def split(self) -> tuple[Affine, Affine] | None:
        """Return two steps, the second of which only reorders channels and scales each of them.

        The first keeps the order and has one scale, so that the second can be folded into a
        kernel; zero padding may come between. Returns None if the second would be the identity or
        would need more.
        """
        simple = self.is_ordered and self.is_one_scale
        by_channel = max(self.scale.ndim, self.offset.ndim) <= 1 and bool((self.scale != 0).all())
        if simple or not by_channel or sorted(self.order) != list(range(self.tensor.shape[-1])):
            return None
        common = self.scale.flat[0] if self.is_one_scale else np.float64(1)
        shift = np.broadcast_to(self.offset / self.scale * common, self.channels)
        first = Affine.of(self.tensor, self.name).then(common, shift[np.argsort(self.order)])
        return first, replace(self, scale=self.scale / common, offset=np.zeros(()))

    def into_kernel(self, kernel: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the kernel [h, w, C, out] with this step folded in.

        This step is the second one of `split`.
        """
        scaled = np.zeros_like(kernel)
        factor = np.broadcast_to(self.scale, self.channels)[:, np.newaxis]
        scaled[:, :, list(self.order)] = kernel * factor
        return scaled

    def apply(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """Return the transformed values [..., C], in NumPy."""
        return np.asarray(values)[..., list(self.order)] * self.scale + self.offset


def as_factor(values: Values) -> float | list[Any]:
    """Return an argument of Rescaling: one number where all are equal, else nested lists."""
    if values.size and np.ptp(values) == 0:
        return float(values.flat[0])
    return list(values.tolist())


def for_one_image(constant: Any, rank: int) -> Values | None:
    """Return a constant that broadcasts against one image of a tensor of this rank, or None."""
    values = np.asarray(constant, np.float64)
    if values.ndim == rank and values.shape[0] == 1:
        values = values[0]
    while values.ndim > 1 and values.shape[0] == 1:
        values = values[0]
    return values if values.ndim < rank else None


def _take(values: Values, order: Sequence[int]) -> Values:
    return values[..., list(order)] if values.ndim and values.shape[-1] > 1 else values
