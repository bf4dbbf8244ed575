"""Observers give the ranges they promise, in known cases and for any values."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from lesiontk.calibration.histogram_observers import (
    EntropyObserver,
    MSEObserver,
    PercentileObserver,
)
from lesiontk.calibration.observers import (
    OBSERVERS,
    MinMaxObserver,
    MovingAverageObserver,
    Observer,
)
from lesiontk.errors import DataError

Images = list[NDArray[np.float32]]

finite = st.floats(-1e6, 1e6, width=32)
observations: st.SearchStrategy[Images] = st.lists(
    st.lists(finite, min_size=1, max_size=60).map(lambda v: np.array(v, np.float32)),
    min_size=1,
    max_size=8,
)
each_observer = pytest.mark.parametrize("name", list(OBSERVERS))


def observe(observer: Observer, images: Images) -> tuple[float, float]:
    for image in images:
        observer.observe(image)
    return observer.range()


def share_inside(images: Images, low: float, high: float) -> float:
    values = np.concatenate(images)
    return float(((values >= low) & (values <= high)).mean())


def array(*values: float) -> NDArray[np.float32]:
    return np.array(values, np.float32)


# ------------------------------------------------------------------------------ all of them


@each_observer
@settings(max_examples=40)
@given(images=observations)
def test_a_range_holds_zero_and_has_a_width(name: str, images: Images) -> None:
    low, high = observe(OBSERVERS.get(name)(), images)
    assert low <= 0.0 <= high
    assert low < high


@each_observer
@settings(max_examples=40)
@given(images=observations)
def test_no_range_is_much_wider_than_the_values(name: str, images: Images) -> None:
    """Resolution is not given away: at most one percentile bin beyond the extremes."""
    low, high = observe(OBSERVERS.get(name)(), images)
    values = np.concatenate(images)
    largest = float(np.abs(values).max())
    slack = 1e-8 + 2 * largest / 1000
    assert low >= min(0.0, float(values.min())) - slack
    assert high <= max(0.0, float(values.max())) + slack


@each_observer
def test_values_of_one_image_may_have_any_shape(name: str) -> None:
    flat, shaped = OBSERVERS.get(name)(), OBSERVERS.get(name)()
    values = np.linspace(-2, 5, 24, dtype=np.float32)
    assert observe(flat, [values]) == observe(shaped, [values.reshape(2, 3, 4)])


@each_observer
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_refused(name: str, value: float) -> None:
    observer = OBSERVERS.get(name)()
    observer.observe(array(0, 1))
    with pytest.raises(DataError, match="not finite on the calibration images"):
        observer.observe(array(0, value, 1))


@each_observer
def test_no_image_is_an_error(name: str) -> None:
    observer = OBSERVERS.get(name)()
    for _ in range(2):
        with pytest.raises(DataError, match="no calibration image was observed"):
            observer.range()
        observer.observe(array())


@each_observer
@pytest.mark.parametrize("value", [0.0, 3.0, -3.0, 1e-44])
def test_one_constant_gives_a_range_between_it_and_zero(name: str, value: float) -> None:
    low, high = observe(OBSERVERS.get(name)(), [np.full(9, value, np.float32)] * 3)
    assert low == pytest.approx(min(value, 0.0), abs=2e-3)
    assert high == pytest.approx(max(value, 0.0), abs=2e-3)


@each_observer
def test_the_same_images_give_the_same_range(name: str) -> None:
    images = [np.random.default_rng(n).normal(size=50).astype(np.float32) for n in range(5)]
    assert observe(OBSERVERS.get(name)(), images) == observe(OBSERVERS.get(name)(), images)


# ------------------------------------------------------------------------------ min-max


@settings(max_examples=60)
@given(images=observations)
def test_min_max_holds_every_value_and_touches_the_extremes(images: Images) -> None:
    low, high = observe(MinMaxObserver(), images)
    values = np.concatenate(images)
    assert share_inside(images, low, high) == 1.0
    assert low == pytest.approx(min(0.0, float(values.min())), abs=0)
    assert high == pytest.approx(max(0.0, float(values.max())), abs=1e-8)


def test_min_max_of_a_known_case() -> None:
    assert observe(MinMaxObserver(), [array(1, -2, 3), array(0, 7), array(5)]) == (-2.0, 7.0)
    assert observe(MinMaxObserver(), [array(4, 5)]) == (0.0, 5.0)
    assert observe(MinMaxObserver(), [array(-4, -5)]) == (-5.0, 0.0)


# ------------------------------------------------------------------------------ moving average


def test_a_moving_average_begins_with_the_first_image_and_follows_slowly() -> None:
    observer = MovingAverageObserver(momentum=0.75)
    assert observe(observer, [array(-1, 2)]) == (-1.0, 2.0)
    assert observe(observer, [array(-5, 10)]) == (-2.0, 4.0)
    assert observe(observer, [array(-2, 0)]) == (-2.0, 3.0)


@settings(max_examples=60)
@given(images=observations, momentum=st.floats(0, 1))
def test_a_moving_average_is_its_weighted_sum(images: Images, momentum: float) -> None:
    """Written out: the first extreme times m^(n-1), each later one times (1 - m) m^(n-1-k)."""
    n = len(images)
    weights = [(1 - momentum if k else 1.0) * momentum ** (n - 1 - k) for k in range(n)]
    low = sum(w * float(image.min()) for w, image in zip(weights, images, strict=True))
    high = sum(w * float(image.max()) for w, image in zip(weights, images, strict=True))
    received = observe(MovingAverageObserver(momentum), images)
    assert received[0] == pytest.approx(min(low, 0.0), rel=1e-6, abs=1e-6)
    assert received[1] == pytest.approx(max(high, 0.0), rel=1e-6, abs=1e-6)


def test_a_moving_average_lets_a_single_outlier_saturate() -> None:
    images = [array(-1, 1)] * 50
    images[25] = array(-1, 1000)
    assert observe(MovingAverageObserver(), images)[1] < 60 < observe(MinMaxObserver(), images)[1]


# ------------------------------------------------------------------------------ percentile


@settings(max_examples=100)
@given(images=observations, percentile=st.sampled_from([50.0, 90.0, 99.0, 99.9, 99.99]))
def test_a_percentile_holds_at_least_its_share(images: Images, percentile: float) -> None:
    low, high = observe(PercentileObserver(percentile), images)
    assert share_inside(images, low, high) >= percentile / 100 - 1e-12


def widened(largest: float) -> Images:
    """Images of which each reaches further than all before: the histogram widens every time."""
    generator = np.random.default_rng(3)
    return [
        (generator.normal(size=2000) * scale).astype(np.float32)
        for scale in np.geomspace(1e-3, largest, 12)
    ]


@pytest.mark.parametrize("percentile", [90.0, 99.0])
def test_a_percentile_is_near_numpys_however_often_the_histogram_widened(percentile: float) -> None:
    images = widened(100.0)
    values = np.concatenate(images)
    tail = (100 - percentile) / 2
    bin_width = 2 * 2 * float(np.abs(values).max()) / 4096
    low, high = observe(PercentileObserver(percentile), images)
    assert low == pytest.approx(float(np.percentile(values, tail)), abs=2 * bin_width)
    assert high == pytest.approx(float(np.percentile(values, 100 - tail)), abs=2 * bin_width)


def test_a_percentile_cuts_off_what_is_rare() -> None:
    """The twin of the test above: min-max, which cuts nothing, fails its comparison."""
    images = widened(100.0)
    values = np.concatenate(images)
    _, high = observe(MinMaxObserver(), images)
    assert high != pytest.approx(float(np.percentile(values, 99.5)), rel=0.5)


def test_a_percentile_drops_one_outlier_of_many_values() -> None:
    values = np.append(np.linspace(-1, 1, 99_999, dtype=np.float32), np.float32(1000))
    low, high = observe(PercentileObserver(99.9), [values])
    assert -1.5 < low < -0.5
    assert 0.5 < high < 1.5


def test_a_percentile_barely_depends_on_the_order_of_images() -> None:
    generator = np.random.default_rng(5)
    images = [(generator.normal(size=500) * (n + 1)).astype(np.float32) for n in range(8)]
    forwards = observe(PercentileObserver(99.0), images)
    backwards = observe(PercentileObserver(99.0), images[::-1])
    assert backwards == pytest.approx(forwards, abs=0.05)


# ------------------------------------------------------------------------------ squared error


def squared_error(values: NDArray[np.float32], low: float, high: float) -> float:
    """The mean squared error of 8-bit values between low and high, by quantizing them."""
    step = (high - low) / 255
    zero_point = round(-low / step)
    q = np.clip(np.round(values / step) + zero_point, 0, 255)
    return float(((step * (q - zero_point) - values) ** 2).mean())


@pytest.mark.parametrize("shape", ["normal", "rare outlier", "relu", "outlier"])
def test_no_other_range_has_a_much_smaller_squared_error(shape: str) -> None:
    generator = np.random.default_rng(4)
    values = {
        "normal": generator.normal(size=20_000),
        "rare outlier": np.append(generator.normal(size=500_000), 40.0),
        "relu": np.maximum(generator.normal(size=20_000), 0),
        "outlier": np.append(generator.normal(size=20_000), 40.0),
    }[shape].astype(np.float32)
    low, high = observe(MSEObserver(), [values])
    found = squared_error(values, low, high)
    extremes = min(0.0, float(values.min())), float(values.max())
    tried = [
        squared_error(values, extremes[0] * a, extremes[1] * b)
        for a in np.linspace(0.1, 1, 10)
        for b in np.linspace(0.1, 1, 10)
    ]
    assert found <= 1.05 * min(tried)
    if shape == "rare outlier":
        assert found < 0.9 * squared_error(values, *extremes)  # min-max is worse


# ------------------------------------------------------------------------------ entropy


def test_entropy_cuts_a_far_outlier_off_and_keeps_a_uniform_distribution() -> None:
    generator = np.random.default_rng(5)
    normal = generator.normal(size=100_000).astype(np.float32)
    low, high = observe(EntropyObserver(), [np.append(normal, np.float32(60))])
    assert 2.0 < high < 15.0
    assert -15.0 < low < -2.0
    uniform = generator.uniform(-1, 1, 100_000).astype(np.float32)
    low, high = observe(EntropyObserver(), [uniform])
    assert high > 0.9
    assert low < -0.9


def test_entropy_does_not_count_zeros() -> None:
    values = np.random.default_rng(6).exponential(size=50_000).astype(np.float32)
    padded = np.append(values, np.zeros(10**6, np.float32))
    assert observe(EntropyObserver(), [padded]) == observe(EntropyObserver(), [values])
