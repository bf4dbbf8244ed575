"""What of a normalization a uint8 input's scale and zero point can say."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lesiontk.backends.input_quantization import InputQuantization

BYTES = np.arange(256, dtype=np.float64)
scales = st.floats(1e-4, 10)


def real_values(quantization: InputQuantization) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return quantization.scale * (BYTES - quantization.zero_point)


@given(scales, st.integers(0, 255))
def test_scaling_and_a_shift_by_whole_steps_are_folded(scale: float, zero_point: int) -> None:
    scaled = InputQuantization().after("mul", np.array([scale]))
    assert scaled is not None
    folded = scaled.after("add", np.full(3, -scale * zero_point))
    assert folded is not None
    assert folded.zero_point == zero_point
    np.testing.assert_allclose(real_values(folded), BYTES * scale - scale * zero_point, atol=1e-9)


@given(st.integers(0, 255), scales)
def test_a_shift_may_come_before_the_scaling(zero_point: int, scale: float) -> None:
    shifted = InputQuantization().after("add", np.array([-zero_point]))
    assert shifted is not None
    folded = shifted.after("mul", np.array([scale]))
    assert folded is not None
    np.testing.assert_allclose(real_values(folded), (BYTES - zero_point) * scale, atol=1e-9)


@pytest.mark.parametrize(
    ("operator", "constant"),
    [
        ("add", [-127.5]),  # no whole zero point
        ("add", [1.0]),  # zero point -1
        ("add", [-256.0]),  # zero point 256
        ("add", [-1.0, -2.0, -3.0]),  # one for each channel
        ("mul", [0.5, 0.25, 0.125]),
        ("mul", [0.0]),
        ("mul", [-1.0]),
        ("mul", []),
    ],
)
def test_what_no_byte_scale_can_say_is_not_folded(operator: str, constant: list[float]) -> None:
    assert InputQuantization().after(operator, np.array(constant)) is None  # type: ignore[arg-type]


def test_its_range_is_that_of_bytes_0_and_255() -> None:
    assert InputQuantization(0.5, 10).range() == (-5.0, 122.5)
