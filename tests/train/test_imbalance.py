"""The weights of rare classes, in cases worked by hand. The losses need TensorFlow: test_losses."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from lesiontk.errors import UsageError
from lesiontk.train.imbalance import (
    IMBALANCE,
    choose_imbalance,
    draw_weights,
    weigh_effective_number,
    weigh_inverse,
    weigh_inverse_root,
)

COUNTS = np.array([30, 10], np.int64)
class_counts = st.lists(st.integers(1, 10_000), min_size=2, max_size=8).map(
    lambda counts: np.array(counts, np.int64)
)


def test_inverse_weights_of_a_known_case() -> None:
    assert weigh_inverse(COUNTS) == pytest.approx([40 / 60, 40 / 20])


def test_inverse_root_weights_of_a_known_case() -> None:
    assert weigh_inverse_root(np.array([90, 10])) == pytest.approx(
        [math.sqrt(100 / 180), math.sqrt(5)]
    )


def test_effective_number_weights_of_a_known_case() -> None:
    """With beta 0.5: 0.5 / (1 - 0.5) = 1 and 0.5 / (1 - 0.25) = 2/3, brought to mean 1."""
    assert weigh_effective_number(np.array([1, 2]), beta=0.5) == pytest.approx([1.2, 0.8])


def test_effective_numbers_stop_growing_where_inverse_weights_do_not() -> None:
    counts = np.array([10, 100_000, 1_000_000])
    effective, inverse = weigh_effective_number(counts), weigh_inverse(counts)
    assert effective[1] == pytest.approx(effective[2])
    assert inverse[1] == pytest.approx(10 * inverse[2])


def test_the_log_prior_of_a_known_case() -> None:
    shift = choose_imbalance("logit_adjustment:2").logit_shift
    assert shift is not None
    assert shift(np.array([0.75, 0.25])) == pytest.approx(2 * np.log([0.75, 0.25]))


@settings(max_examples=60)
@given(counts=class_counts)
def test_inverse_weights_make_every_class_count_the_same(counts: NDArray[np.int64]) -> None:
    weights = weigh_inverse(counts)
    assert weights * counts == pytest.approx(np.full(len(counts), counts.sum() / len(counts)))


@settings(max_examples=60)
@given(counts=class_counts)
def test_roots_lie_between_equal_and_inverse_weights(counts: NDArray[np.int64]) -> None:
    root, inverse = weigh_inverse_root(counts), weigh_inverse(counts)
    assert root**2 == pytest.approx(inverse)
    assert ((root - 1) * (inverse - 1) >= -1e-12).all()
    assert (np.abs(np.log(root)) <= np.abs(np.log(inverse)) + 1e-12).all()


@pytest.mark.parametrize(
    "name", [n for n, make in IMBALANCE.items() if make().draw_weight or make().loss_weight]
)
@settings(max_examples=30)
@given(counts=class_counts)
def test_the_rarer_class_never_weighs_less(name: str, counts: NDArray[np.int64]) -> None:
    choice = choose_imbalance(name)
    weigh = choice.draw_weight or choice.loss_weight
    assert weigh is not None
    weights = weigh(counts)
    assert weights.shape == counts.shape
    assert np.isfinite(weights).all()
    assert (weights > 0).all()
    assert (np.diff(weights[np.argsort(counts, kind="stable")]) <= 1e-9).all()
    assert weigh(np.full(4, 25)) == pytest.approx(np.ones(4))


def test_only_sampling_changes_the_draw() -> None:
    drawing = {name for name, make in IMBALANCE.items() if make().draw_weight}
    assert drawing == {"balanced_sampling", "sqrt_sampling"}


def weights_of(*names: str) -> NDArray[np.float64] | None:
    return draw_weights([choose_imbalance(name) for name in names], COUNTS)


@pytest.mark.parametrize(
    "names", [(), ("none",), ("class_weight", "focal_loss", "logit_adjustment", "mixup")]
)
def test_without_sampling_images_are_shuffled_plainly(names: tuple[str, ...]) -> None:
    assert weights_of(*names) is None


def test_sampling_weighs_the_draw() -> None:
    assert weights_of("class_weight", "balanced_sampling") == pytest.approx([2 / 3, 2])


def test_two_samplings_multiply() -> None:
    received = weights_of("balanced_sampling", "sqrt_sampling")
    assert received == pytest.approx(weigh_inverse(COUNTS) ** 1.5)


def test_balanced_sampling_draws_every_class_equally_often() -> None:
    weights = weights_of("balanced_sampling")
    assert weights is not None
    drawn = COUNTS * weights
    assert drawn[0] == pytest.approx(drawn[1])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("class_weight:2", "'class_weight' takes no strength; received 'class_weight:2'"),
        ("focal_loss:much", "'focal_loss:much'.*expected a number, focal_loss:GAMMA"),
        ("focal_loss:-1", "gamma must not be negative; expected"),
        ("effective_number:1", "beta must be at least 0 and below 1"),
        ("label_smoothing:0.5", "at least 0 and below 0.5"),
        ("logit_adjustment:0", "tau must be above 0"),
        ("mixup:0", "alpha must be above 0"),
        ("cutmix:0", "alpha must be above 0"),
        ("mix_up", "unknown imbalance choice 'mix_up'.* Did you mean 'mixup'"),
    ],
)
def test_a_strength_that_cannot_be_is_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        choose_imbalance(text)


def test_a_strength_is_taken_from_the_name() -> None:
    weigh = choose_imbalance("effective_number:0.5").loss_weight
    assert weigh is not None
    assert weigh(np.array([1, 2])) == pytest.approx([1.2, 0.8])
