"""The images of a gate's metric, and the name of their lesions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lesiontk.evaluate.exact_bounds import BoolArray
from lesiontk.evaluate.metrics import IntArray
from lesiontk.recipe.gate_grammar import Gate, is_of_positive, name_group


def find_relevant(
    gate: Gate, y_true: IntArray, labels: Sequence[str], positive: Sequence[str]
) -> tuple[BoolArray, str]:
    """Return a mask [N] of the images, and a name such as ``mel lesions``."""
    if is_of_positive(gate, positive):
        chosen: BoolArray = np.isin(y_true, [list(labels).index(label) for label in positive])
        name = name_group(positive)[0]
    elif gate.label:
        chosen, name = y_true == list(labels).index(gate.label), gate.label
    else:
        return np.ones(len(y_true), dtype=np.bool_), "lesions"
    if gate.kind == "specificity":
        return ~chosen, f"lesions that are not {name}"
    return chosen, f"{name} lesions"
