"""What every registered metric must do, on predictions of any kind."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lesiontk.evaluate.metrics import FloatArray, IntArray, MetricScorer
from lesiontk.recipe.gate_grammar import gate_metrics, parse_gate
from lesiontk.recipe.metric import METRICS

LABELS = ("mel", "nv", "bcc")
SEEDS = st.integers(0, 2**32 - 1)
each_metric = pytest.mark.parametrize("kind", list(METRICS))


def draw_predictions(seed: int, images: int = 40) -> tuple[IntArray, FloatArray]:
    """Return truth [N] with every label, and probabilities [N, C] that know some of it."""
    generator = np.random.default_rng(seed)
    truth = np.arange(images) % len(LABELS)
    logits = generator.normal(0, 1, (images, len(LABELS))) + 1.5 * np.eye(len(LABELS))[truth]
    powers = np.exp(logits)
    return truth, powers / powers.sum(axis=1, keepdims=True)


def scores_of(
    kind: str, truth: IntArray, probabilities: FloatArray, weights: FloatArray | None = None
) -> FloatArray:
    """Return the metric's values, [B, C] or [B, 1]."""
    found = MetricScorer(truth, probabilities, LABELS).compute(weights)
    return np.stack([v for n, v in found.items() if n.partition("[")[0] == kind], axis=1)


@each_metric
def test_its_entry_bears_its_name(kind: str) -> None:
    assert METRICS.get(kind).name == kind


@each_metric
@given(seed=SEEDS)
def test_it_gives_a_number_of_every_label_that_is_there(kind: str, seed: int) -> None:
    values = scores_of(kind, *draw_predictions(seed))
    assert values.shape == (1, len(LABELS) if METRICS.get(kind).per_label else 1)
    assert np.isfinite(values).all() or kind == "precision"  # of a class that is never predicted
    if METRICS.get(kind).cost_of_nothing is None:
        assert ((values >= 0) & (values <= 1))[np.isfinite(values)].all()


@each_metric
@given(seed=SEEDS)
def test_an_image_of_weight_two_is_that_image_twice(kind: str, seed: int) -> None:
    truth, probabilities = draw_predictions(seed)
    weights = np.random.default_rng(seed).integers(0, 3, (1, len(truth))).astype(np.float64)
    weights[0, : len(LABELS)] = 1
    rows = np.repeat(np.arange(len(truth)), weights[0].astype(int))
    weighted = scores_of(kind, truth, probabilities, weights)
    repeated = scores_of(kind, truth[rows], probabilities[rows])
    np.testing.assert_allclose(weighted, repeated, rtol=1e-9, atol=1e-12)


@each_metric
def test_answers_that_are_right_are_better_than_answers_that_are_not(kind: str) -> None:
    truth, _ = draw_predictions(0)
    right = 0.94 * np.eye(len(LABELS))[truth] + 0.02
    wrong = np.roll(right, 1, axis=1)
    sign = -1 if METRICS.get(kind).lower_is_better else 1
    assert (sign * scores_of(kind, truth, right) > sign * scores_of(kind, truth, wrong)).all()


@each_metric
def test_a_gate_can_name_it(kind: str) -> None:
    name = f"{kind}[mel]" if METRICS.get(kind).per_label else kind
    assert name in gate_metrics(LABELS, ("mel",))
    sign, against = ("<=", "+") if METRICS.get(kind).lower_is_better else (">=", "-")
    gate = parse_gate(f"{name} {sign} parent {against} 0.01 @ 0.95")
    assert gate.lower_is_better == METRICS.get(kind).lower_is_better
