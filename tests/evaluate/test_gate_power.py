"""What a split can show: known numbers, and that what cannot pass does not."""

from __future__ import annotations

import numpy as np
import pytest

from lesiontk.errors import DataError
from lesiontk.evaluate.gate_power import ASSUMED, TestLesions, compute_power

LABELS = ("nv", "mel")


def make_lesions(mel: int, nv: int = 1000, images_each: int = 1) -> TestLesions:
    y_true = np.repeat([1, 0], [mel * images_each, nv * images_each])
    lesion = np.arange(mel + nv).repeat(images_each)
    return TestLesions(y_true, lesion, LABELS, ("mel",))


def test_twelve_melanomas_can_show_no_loss_below_22_points() -> None:
    (power,) = compute_power(["recall[mel] >= parent - 0.05 @ 0.95"], make_lesions(12), 1)
    assert (power.lesions, power.of, power.tests) == (12, "mel lesions", 1)
    assert power.alone["unchanged"] == pytest.approx(1 - 0.05 ** (1 / 12))
    assert power.shows("unchanged") is False


def test_more_lesions_show_more_and_more_tests_show_less() -> None:
    gate = ["recall[mel] >= parent - 0.05 @ 0.95"]
    (few,), (many,) = (compute_power(gate, make_lesions(n), 1) for n in (60, 240))
    (crowded,) = compute_power(gate, make_lesions(240), 10)
    assert few.shows("unchanged")
    for change in ASSUMED:
        assert (many.alone[change] or 0) < (few.alone[change] or 0)
        assert (crowded.among[change] or 0) > (many.among[change] or 0)
        assert crowded.alone[change] == many.alone[change]
    assert many.shows("quantized")
    assert not crowded.shows("compressed")


def test_an_engine_that_differs_shows_no_smaller_loss_than_one_that_never_does() -> None:
    gates = ["macro_auc >= parent - 0.05 @ 0.95", "log_loss <= parent + 0.05 @ 0.95"]
    for power in compute_power([*gates, "accuracy >= parent - 0.1 @ 0.95"], make_lesions(9, 10), 2):
        for smallest in (power.alone, power.among):
            assert smallest["unchanged"] is not None
            assert smallest["quantized"] is not None
            assert smallest["quantized"] >= smallest["unchanged"]


def test_the_pictures_of_a_lesion_are_no_lesions() -> None:
    gate = ["recall[mel] >= parent - 0.05 @ 0.95"]
    single, several = (compute_power(gate, make_lesions(40, images_each=n), 1)[0] for n in (1, 5))
    assert several.alone == pytest.approx(single.alone)


def test_a_bound_of_a_value_says_how_far_above_it_must_be_measured() -> None:
    (power,) = compute_power(["recall[mel] >= 0.8 @ 0.95"], make_lesions(100), 1)
    assert power.alone["unchanged"] == pytest.approx(0.067, abs=0.01)
    assert power.shows("unchanged") is None


def test_what_needs_no_lesions_is_left_out_and_what_depends_on_the_engine_is_a_dash() -> None:
    gates = ["p90_ms <= 20", "accuracy >= 0.5", "macro_f1 >= parent - 0.1 @ 0.95"]
    (power,) = compute_power(gates, make_lesions(100), 2)
    assert power.gate.startswith("macro_f1")
    assert power.alone["quantized"] is None
    assert power.to_document()["can_pass"]["compressed"] is None


def test_a_split_without_test_images_is_refused() -> None:
    with pytest.raises(DataError, match="no test images"):
        make_lesions(0, 0)
