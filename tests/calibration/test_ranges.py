"""Every tensor gets the range that its observer saw, and no image gives no range."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lesiontk.calibration.ranges import collect_ranges
from lesiontk.errors import DataError, UsageError

IMAGES = [np.full((1, 8, 8, 3), value, np.uint8) for value in (1, 5, 3)]


def run(image: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
    values = image.astype(np.float32)
    return {"input": values, "shifted": values - 4, "negative": -2 * values}


def test_every_tensor_has_its_own_range_over_all_images() -> None:
    assert collect_ranges(run, IMAGES, "min_max") == {
        "input": (0.0, 5.0),
        "shifted": (-3.0, 1.0),
        "negative": (-10.0, 0.0),
    }


def test_the_named_observer_observes() -> None:
    averaged = collect_ranges(run, IMAGES, "moving_average")
    assert averaged["input"][1] == pytest.approx(0.95 * (0.95 * 1 + 0.05 * 5) + 0.05 * 3)


def test_images_may_come_one_by_one() -> None:
    assert collect_ranges(run, iter(IMAGES), "min_max") == collect_ranges(run, IMAGES, "min_max")


@pytest.mark.parametrize("observer", ["min_max", "moving_average", "percentile"])
def test_no_images_are_an_error(observer: str) -> None:
    with pytest.raises(DataError, match="int8 needs calibration images; got none"):
        collect_ranges(run, [], observer)


def test_an_unknown_observer_is_an_error_before_any_image_is_run() -> None:
    def refuse(image: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        raise AssertionError("an image was run")

    with pytest.raises(UsageError, match=r"unknown observer 'min_may'.*'min_max'"):
        collect_ranges(refuse, IMAGES, "min_may")


def test_a_tensor_that_is_not_finite_is_an_error() -> None:
    with pytest.raises(DataError, match="not finite"):
        collect_ranges(lambda image: {"input": np.array([np.nan])}, IMAGES, "min_max")
