"""The excess of a corruption is the engine's change beyond its parent's, in pairs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lesiontk.errors import DataError, UsageError
from lesiontk.evaluate.bootstrap import Estimate
from lesiontk.evaluate.comparison import compare_predictions
from lesiontk.evaluate.operating_point import OperatingPoint
from lesiontk.evaluate.robustness import (
    ACCURACY,
    COMPARED,
    CorruptedResult,
    PairedOutputs,
    Robustness,
    estimate_excess,
)

LABELS = ("nv", "mel", "bcc")
POINTS = (
    OperatingPoint("youden", 0.5, ("mel", "bcc")),
    OperatingPoint("youden", 0.45, ("mel", "bcc")),
)
N = 240
STATISTICS: dict[str, Any] = {"resamples": 400, "confidence": 0.95, "seed": 1}
GROUPS = [f"lesion {number // 2}" for number in range(N)]
TRUTH = np.random.default_rng(0).integers(3, size=N)


def predict(wrong: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return confident predictions [N, 3]: the next class where they are wrong."""
    outputs = np.full((N, 3), 0.05, np.float32)
    outputs[np.arange(N), (TRUTH + wrong) % 3] = 0.9
    return outputs


def draw(share: float, seed: int) -> NDArray[np.bool_]:
    return np.random.default_rng(seed).random(N) < share


def pair(parent: list[NDArray[np.bool_]], engine: list[NDArray[np.bool_]]) -> PairedOutputs:
    """Return outputs that are wrong where these say, clean first."""
    before, after = (np.stack([predict(wrong) for wrong in of]) for of in (parent, engine))
    return PairedOutputs(TRUTH, before, after, LABELS, GROUPS, POINTS)


def accuracy(wrong: NDArray[np.bool_]) -> float:
    return float((~wrong).mean())


def test_the_excess_is_the_difference_of_differences() -> None:
    parent, engine = ([draw(s, n) for n, s in enumerate(x)] for x in ((0.1, 0.3), (0.15, 0.5)))
    clean, (result,), overall = estimate_excess(pair(parent, engine), **STATISTICS)
    assert tuple(result) == tuple(clean) == tuple(overall) == COMPARED
    loss = result[ACCURACY]
    assert loss.parent.value == pytest.approx(accuracy(parent[1]) - accuracy(parent[0]))
    assert loss.engine.value == pytest.approx(accuracy(engine[1]) - accuracy(engine[0]))
    assert loss.excess.value == pytest.approx(loss.engine.value - loss.parent.value)
    assert overall[ACCURACY].value == pytest.approx(loss.excess.value)
    on_clean = clean[ACCURACY]
    assert on_clean.parent == pytest.approx(accuracy(parent[0]))
    assert on_clean.difference.value == pytest.approx(accuracy(engine[0]) - accuracy(parent[0]))


def test_the_clean_difference_is_that_of_a_benchmark() -> None:
    outputs = pair([draw(0.1, 0), draw(0.2, 1)], [draw(0.2, 2), draw(0.3, 3)])
    clean, _, _ = estimate_excess(outputs, **STATISTICS)
    compared = compare_predictions(
        TRUTH, outputs.parent[0], outputs.engine[0], LABELS, GROUPS, points=POINTS, **STATISTICS
    ).differences
    for metric in COMPARED:
        expected, found = compared[metric], clean[metric].difference
        for end in ("value", "low", "high"):
            assert getattr(found, end) == pytest.approx(getattr(expected, end))


def test_a_loss_of_the_engine_alone_is_shown_and_an_equal_one_is_not() -> None:
    clean = draw(0.1, 0)
    broken, both = clean | draw(0.3, 1), clean | draw(0.3, 2)
    _, (alone, shared), overall = estimate_excess(
        pair([clean, clean, both], [clean, broken, both]), **STATISTICS
    )
    excess = alone[ACCURACY].excess
    assert excess.high is not None
    assert excess.high < 0
    equal = shared[ACCURACY].excess
    assert equal.value == 0
    assert equal.low is not None  # nothing is discordant: the exact interval, not one of width 0
    assert equal.low < 0 < (equal.high or 0)
    assert overall[ACCURACY].value == pytest.approx((excess.value or 0) / 2)


def test_pairs_are_more_precise_than_separate_images() -> None:
    """What both engines lose cancels: the interval is that of what differs."""
    clean, corrupted = draw(0.1, 0), draw(0.4, 1)
    engine = corrupted ^ draw(0.05, 2)
    _, (result,), _ = estimate_excess(
        pair([clean, corrupted], [clean ^ draw(0.05, 3), engine]), **STATISTICS
    )
    loss = result[ACCURACY]

    def width(estimate: Estimate) -> float:
        assert estimate.low is not None
        assert estimate.high is not None
        return estimate.high - estimate.low

    assert width(loss.excess) < 0.75 * width(loss.engine)


def test_each_engine_is_at_its_own_threshold() -> None:
    outputs = pair([draw(0, 0)] * 2, [draw(0, 0)] * 2)
    weak = np.array(outputs.engine)
    malignant = TRUTH > 0
    weak[1, malignant] = [0.53, 0.24, 0.23]  # 0.47: positive at 0.45 and not at 0.5
    _, (own,), _ = estimate_excess(replace(outputs, engine=weak), **STATISTICS)
    assert own["sensitivity"].excess.value == 0
    _, (same,), _ = estimate_excess(
        replace(outputs, engine=weak, points=(POINTS[0], POINTS[0])), **STATISTICS
    )
    assert same["sensitivity"].excess.value == -1


def test_images_without_a_positive_have_no_sensitivity() -> None:
    outputs = pair([draw(0.1, 0), draw(0.2, 1)], [draw(0.1, 2), draw(0.2, 3)])
    benign = replace(outputs, y_true=np.zeros(N, np.int64))
    clean, (result,), overall = estimate_excess(benign, **STATISTICS)
    assert clean["sensitivity"].parent is None
    assert result["sensitivity"].excess == overall["sensitivity"] == Estimate(None, None, None)
    assert result["specificity"].excess.value is not None


def test_wrong_shapes_are_named() -> None:
    outputs = pair([draw(0.1, 0), draw(0.2, 1)], [draw(0.1, 2), draw(0.2, 3)])
    with pytest.raises(DataError, match=r"outputs of the engine have shape \[2, 200, 3\]"):
        replace(outputs, engine=outputs.engine[:, :200])
    with pytest.raises(DataError, match="K - 1 corrupted"):
        replace(outputs, parent=outputs.parent[:1])
    with pytest.raises(DataError, match="expected the same conditions"):
        replace(outputs, parent=outputs.parent[[0, 1, 1]])
    with pytest.raises(DataError, match="groups has 3 entries; expected 240"):
        estimate_excess(replace(outputs, groups=["a", "b", "c"]), **STATISTICS)
    with pytest.raises(UsageError, match="resamples is 10"):
        estimate_excess(outputs, **{**STATISTICS, "resamples": 10})


def test_the_record_is_read_as_it_was_written_and_lists_what_is_shown() -> None:
    clean = draw(0.1, 0)
    first, losses, overall = estimate_excess(
        pair([clean] * 3, [clean, clean | draw(0.3, 1), clean]), **STATISTICS
    )
    made = Robustness(
        target="tflite:int8",
        parent="tflite:float32",
        reference=False,
        n=N,
        lesions=N // 2,
        available=N,
        images={"nv": 80, "mel": 80, "bcc": 80},
        split_hash="f" * 64,
        clean=first,
        results=tuple(
            CorruptedResult("hair", severity, f"{severity} hairs", loss)
            for severity, loss in enumerate(losses, start=1)
        ),
        overall=overall,
        **STATISTICS,
    )
    assert Robustness.from_document(made.to_document()) == made
    assert [result.severity for result in made.list_shown()] == [1]


def test_few_discordant_lesions_on_clean_images_widen_every_excess_and_the_mean() -> None:
    """Two lesions that differ on clean images alone are in every excess, and are only two."""
    clean = draw(0.1, 0)
    engine = clean.copy()
    engine[[10, 20]] = ~engine[[10, 20]]
    corrupted = [clean | draw(0.2, seed) for seed in (1, 2, 3)]
    other = [of ^ draw(0.04, 9 + seed) for seed, of in enumerate(corrupted)]
    parent = [clean, *corrupted]
    many = estimate_excess(pair(parent, [clean ^ draw(0.08, 5), *other]), **STATISTICS)
    few = estimate_excess(pair(parent, [engine, *other]), **STATISTICS)
    limits = few[0][ACCURACY].difference
    assert limits.low is not None
    for estimate in (few[1][0][ACCURACY].excess, few[2][ACCURACY]):
        assert estimate.low is not None
        assert estimate.value is not None
        assert estimate.value - estimate.low > (limits.high or 0) - (limits.value or 0)
    assert many[2][ACCURACY].low is not None
