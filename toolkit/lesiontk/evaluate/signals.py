"""What an engine returns beside its probabilities, for its input checks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Signals:
    """Probabilities [N, C], pooled features [N, D] and logits [N, C] of N images, float32."""

    probabilities: NDArray[np.float32]
    features: NDArray[np.float32]
    logits: NDArray[np.float32]

    @classmethod
    def join(cls, parts: Iterable[Self]) -> Self:
        """Return the signals of all parts, in order; at least one."""
        found = [(part.probabilities, part.features, part.logits) for part in parts]
        return cls(*(np.concatenate(column) for column in zip(*found, strict=True)))
