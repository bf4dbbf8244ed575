"""Pooled features and logits as further outputs: the probabilities stay the same bits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from lesiontk.backends import find_backend, open_engine
from lesiontk.data.synthetic.other_images import OTHER_IMAGES, draw_other_images
from lesiontk.errors import DataError, UsageError
from lesiontk.evaluate.golden_images import golden_images

ENGINES = Path(__file__).parents[2] / "benchmarks" / "engines"
PUBLISHED = sorted(
    path
    for pattern in ("tflite_int8.tflite", "onnx_int8.onnx", "tensorrt_int8.onnx")
    for path in ENGINES.glob(f"*/{pattern}")
    if path.stat().st_size < 5_000_000
)


def add_signals(path: Path, folder: Path) -> Path:
    backend = find_backend(path)()
    out = folder / path.name
    out.write_bytes(backend.add_signal_outputs(backend.split_record(path.read_bytes())[0]))
    return out


def pictures(size: int) -> NDArray[np.uint8]:
    drawn = [image for family in OTHER_IMAGES for image in draw_other_images(family, 2, size, 3)]
    return np.concatenate([golden_images(size), np.stack(drawn)])


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_the_probabilities_are_the_same_bits(path: Path, tmp_path: Path) -> None:
    with open_engine(path) as plain, open_engine(add_signals(path, tmp_path)) as engine:
        images = pictures(plain.spec.preprocessing.image_size)
        expected = plain.predict(images)
        found = engine.predict_signals(images)
        assert engine.spec == plain.spec
        assert np.array_equal(engine.predict(images), expected)
    assert np.array_equal(found.probabilities, expected)
    powers = np.exp(found.logits - found.logits.max(axis=1, keepdims=True))
    assert powers / powers.sum(axis=1, keepdims=True) == pytest.approx(expected, abs=1e-6)
    assert found.features.shape[0] == len(images)
    assert np.ptp(found.features, axis=0).any()


def test_an_engine_of_probabilities_only_says_what_is_missing() -> None:
    with open_engine(PUBLISHED[0]) as engine, pytest.raises(UsageError, match="input-checks"):
        engine.predict_signals(pictures(engine.spec.preprocessing.image_size)[:1])


def test_a_back_end_without_such_outputs_says_which_have_them() -> None:
    keras = find_backend(ENGINES / "cnn_7class" / "keras_float32.keras")()
    with pytest.raises(UsageError, match="one of tflite, onnx or tensorrt"):
        keras.add_signal_outputs(b"")


@pytest.mark.parametrize("path", PUBLISHED[:1] + PUBLISHED[-1:], ids=lambda path: path.name)
def test_signals_are_not_added_twice(path: Path, tmp_path: Path) -> None:
    made = add_signals(path, tmp_path)
    backend = find_backend(made)()
    with pytest.raises(DataError, match="already returns"):
        backend.add_signal_outputs(made.read_bytes())


def test_pictures_are_the_same_for_the_same_seed() -> None:
    for family in OTHER_IMAGES:
        first, again = (list(draw_other_images(family, 3, 32, 7)) for _ in range(2))
        other = list(draw_other_images(family, 3, 32, 8))
        assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
        assert not all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))
        assert {(image.dtype.name, image.shape) for image in first} == {("uint8", (32, 32, 3))}
