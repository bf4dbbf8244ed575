"""Crop and resize: equal to the golden vectors to the last bit, and what they are said to be."""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from lesiontk.data import preprocess
from lesiontk.data.preprocess import preprocess_image
from lesiontk.records import Preprocessing
from tests.loose_modules import load_module

GOLDEN = Path(__file__).parents[1] / "golden"
CASES: list[dict[str, Any]] = json.loads((GOLDEN / "preprocess.json").read_text())["cases"]


def load_generator() -> ModuleType:
    return load_module(GOLDEN / "make_preprocess.py")


make_input: Callable[[int, int], NDArray[np.uint8]] = load_generator().make_input


@pytest.mark.parametrize(
    "case", CASES, ids=lambda c: f"{c['height']}x{c['width']}-{c['crop_mode']}"
)
def test_the_golden_vectors_hold(case: dict[str, Any]) -> None:
    image = make_input(case["height"], case["width"])
    assert hashlib.sha256(image.tobytes()).hexdigest() == case["input_sha256"]
    fitted = preprocess_image(image, Preprocessing(case["image_size"], case["crop_mode"]))
    for pixel in case["pixels"]:
        assert fitted[pixel["y"], pixel["x"]].tolist() == pixel["rgb"]
    assert hashlib.sha256(fitted.tobytes()).hexdigest() == case["output_sha256"]


def test_the_generator_makes_the_file_that_is_checked_in() -> None:
    assert load_generator().make_document()["cases"] == CASES


def test_it_adds_nothing_to_what_a_bundle_carries() -> None:
    """Crop and resize are `crop.py`, the filters those of `enhance`: a bundle has both."""
    tree = ast.parse(Path(preprocess.__file__).read_text())
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    imported |= {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    assert imported == {
        "__future__", "numpy", "numpy.typing",
        "lesiontk.data.enhance", "lesiontk.data.crop", "lesiontk.records",
    }  # fmt: skip


def fit_without_antialiasing(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    subset = min(image.shape[:2])
    top, left = ((length - subset) // 2 for length in image.shape[:2])
    steps = ((np.arange(size) + 0.5) * subset / size).astype(int)
    return np.ascontiguousarray(image[top + steps][:, left + steps])


def fit_with_margins_rounded_up(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    subset = min(image.shape[:2])
    top, left = (-(-(length - subset) // 2) for length in image.shape[:2])
    box = (left, top, left + subset, top + subset)
    resized = Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR, box=box)
    return np.array(resized)


def fit_after_cropping(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    subset = min(image.shape[:2])
    top, left = ((length - subset) // 2 for length in image.shape[:2])
    square = Image.fromarray(image[top : top + subset, left : left + subset])
    return np.array(square.resize((size, size), Image.Resampling.BILINEAR))


@pytest.mark.parametrize(
    "wrong", [fit_without_antialiasing, fit_with_margins_rounded_up, fit_after_cropping]
)
def test_the_golden_vectors_tell_a_wrong_implementation(
    wrong: Callable[[NDArray[np.uint8], int], NDArray[np.uint8]],
) -> None:
    hashes = {
        hashlib.sha256(
            wrong(make_input(case["height"], case["width"]), case["image_size"]).tobytes()
        ).hexdigest()
        == case["output_sha256"]
        for case in CASES
        if case["crop_mode"] == "crop"
    }
    assert False in hashes


@given(st.integers(8, 40), st.integers(8, 40), st.integers(8, 40), st.integers(0, 255))
def test_a_plain_picture_stays_plain(height: int, width: int, size: int, value: int) -> None:
    image = np.full((height, width, 3), value, np.uint8)
    for crop_mode in ("crop", "stretch"):
        fitted = preprocess_image(image, Preprocessing(size, crop_mode))
        assert fitted.shape == (size, size, 3)
        assert (fitted == value).all()


def test_crop_takes_the_centre_and_stretch_the_whole() -> None:
    image = np.zeros((20, 61, 3), np.uint8)
    image[:, 20:40] = 255
    cropped = preprocess_image(image[:, :60], Preprocessing(20, "crop"))
    assert (cropped == 255).all()
    assert np.array_equal(preprocess_image(image, Preprocessing(20, "crop")), cropped)
    assert 60 < preprocess_image(image, Preprocessing(20, "stretch")).mean() < 110


def test_the_input_is_neither_changed_nor_shared() -> None:
    image = make_input(16, 16)
    before = image.copy()
    preprocess_image(image, Preprocessing(16))[:] = 0
    np.testing.assert_array_equal(image, before)


def test_views_are_fitted_like_copies() -> None:
    view = make_input(48, 64)[::2, ::-2]
    expected = preprocess_image(view.copy(), Preprocessing(12))
    np.testing.assert_array_equal(preprocess_image(view, Preprocessing(12)), expected)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((16, 16), np.uint8),
        np.zeros((16, 16, 4), np.uint8),
        np.zeros((16, 16, 3), np.float32),
        np.zeros((0, 16, 3), np.uint8),
    ],
)
def test_anything_but_rgb_bytes_is_a_bug(image: Any) -> None:
    with pytest.raises(ValueError, match=r"expected uint8 \[H, W, 3\]"):
        preprocess_image(image, Preprocessing(16))
