"""What the engines of other tools' files have in common."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lesiontk.backends.backend import Engine


class ForeignEngine(Engine):
    """An engine whose probabilities may be rounded to eight bits."""

    def _restore(self, outputs: NDArray[np.float32]) -> NDArray[np.float32]:
        return restore_sums(outputs)


def restore_sums(outputs: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return outputs [N, C] with sums of 1 where only steps of 1/256 explain another one.

    Probabilities that a graph rounds to eight bits sum to 1 ± C/512. Other rows are unchanged.
    """
    sums = outputs.sum(axis=1, keepdims=True)
    rounded = np.abs(sums - 1) <= (outputs.shape[1] + 1) / 512
    restored: NDArray[np.float32] = np.divide(outputs, sums, out=outputs.copy(), where=rounded)
    return restored
