"""Tensors of two graphs are matched by their values, in either layout, on every image."""

from __future__ import annotations

import numpy as np

from lesiontk.backends.tensor_matching import find_same

RNG = np.random.default_rng(5)
IMAGES = [RNG.normal(size=(1, 4, 5, 3)) for _ in range(3)]


def test_the_other_layout_is_the_same_tensor() -> None:
    origin = [{"a": x, "b": x + 1} for x in IMAGES]
    tensors = [{"turned": x.transpose(0, 3, 1, 2), "flat": (x + 1).reshape(1, -1)} for x in IMAGES]
    assert find_same(origin, tensors) == {"turned": "a", "flat": "b"}


def test_what_differs_on_one_image_is_another_tensor() -> None:
    origin = [{"clipped": np.minimum(x, x.max() if number else 0)}
              for number, x in enumerate(IMAGES)]  # fmt: skip
    assert find_same(origin, [{"whole": x} for x in IMAGES]) == {}
    assert find_same(origin[1:], [{"whole": x} for x in IMAGES[1:]]) == {"whole": "clipped"}


def test_equal_extremes_are_not_enough() -> None:
    x = IMAGES[0]
    assert find_same([{"a": x}], [{"turned": x[:, ::-1]}]) == {}


def test_rounding_is_forgiven_and_more_is_not() -> None:
    x = IMAGES[0]
    size = np.abs(x).max()
    assert find_same([{"a": x}], [{"b": x + 1e-4 * size}]) == {"b": "a"}
    assert find_same([{"a": x}], [{"b": x + 1e-2 * size}]) == {}
