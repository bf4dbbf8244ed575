"""Every changed class is listed, malignant to benign first."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lesiontk.errors import DataError
from lesiontk.explain.flips import Direction, find_direction, order_flips

LABELS, POSITIVE = ("bkl", "mel", "nv", "bcc"), ("mel", "bcc")


def test_a_direction_is_between_kinds_of_labels() -> None:
    assert find_direction("mel", "nv", POSITIVE) is Direction.LOST
    assert find_direction("nv", "bcc", POSITIVE) is Direction.RAISED
    assert find_direction("mel", "bcc", POSITIVE) is Direction.WITHIN
    assert find_direction("bkl", "nv", POSITIVE) is Direction.WITHIN


def sure(*labels: str, by: float = 0.7) -> np.ndarray:
    outputs = np.full((len(labels), 4), (1 - by) / 3, np.float32)
    outputs[np.arange(len(labels)), [LABELS.index(label) for label in labels]] = by
    return outputs


def test_lost_malignant_images_come_first_and_unchanged_ones_not_at_all() -> None:
    truth = np.array([LABELS.index(label) for label in ("nv", "nv", "mel", "nv", "mel", "bkl")])
    parent = sure("nv", "mel", "mel", "nv", "mel", "bkl")
    engine = sure("bcc", "nv", "nv", "nv", "bcc", "nv")
    assert order_flips(truth, parent, engine, LABELS, POSITIVE) == [2, 1, 0, 4, 5]


def test_the_larger_change_comes_first_among_equals() -> None:
    truth = np.full(2, LABELS.index("mel"))
    parent = sure("mel", "mel")
    engine = np.concatenate([sure("nv", by=0.4), sure("nv", by=0.9)])
    assert order_flips(truth, parent, engine, LABELS, POSITIVE) == [1, 0]


@given(st.integers(0, 2**32 - 1), st.integers(1, 30))
def test_all_changed_rows_are_there_once(seed: int, n: int) -> None:
    generator = np.random.default_rng(seed)
    parent, engine = (generator.dirichlet(np.ones(4), n).astype(np.float32) for _ in range(2))
    found = order_flips(generator.integers(4, size=n), parent, engine, LABELS, POSITIVE)
    assert sorted(found) == np.flatnonzero(parent.argmax(1) != engine.argmax(1)).tolist()


def test_predictions_of_other_images_are_refused() -> None:
    with pytest.raises(DataError, match=r"shapes \[2, 4\] and \[1, 4\]; expected \[2, 4\] of both"):
        order_flips(np.zeros(2, int), sure("nv", "nv"), sure("nv"), LABELS, POSITIVE)
