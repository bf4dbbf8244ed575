"""What every registered enhancement must keep, and that engines carry and apply it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from lesiontk.backends import BACKENDS, list_targets, open_engine
from lesiontk.backends.backend import dump_spec, parse_spec
from lesiontk.backends.keras.backend import load_model, save_model
from lesiontk.data.enhance import ENHANCEMENTS
from lesiontk.data.preprocess import preprocess_image
from lesiontk.errors import DataError
from lesiontk.records import Preprocessing
from lesiontk.workflow.predict import predict_pictures
from tests.conformance.fitted_models import SPEC, FittedParent, draw_pictures

FLOAT = [target for target in list_targets() if target.endswith(":float32")]
ENHANCED = Preprocessing(32, "stretch", enhance=("colour_constancy", "edge_detection"))


def draw_inputs(size: int) -> dict[str, NDArray[np.uint8]]:
    """Pictures of every kind that a filter may stumble over."""
    noise = np.random.default_rng(0).integers(0, 256, (size, size, 3), dtype=np.uint8)
    return {
        "noise": noise,
        "disc": draw_pictures(1, size, 7, seed=4)[0][0],
        "black": np.zeros((size, size, 3), np.uint8),
        "white": np.full((size, size, 3), 255, np.uint8),
        "view": np.repeat(noise, 2, axis=1)[::-1, ::2],
    }


@pytest.mark.parametrize("name", ENHANCEMENTS)
@pytest.mark.parametrize("size", [32, 96, 224])
def test_bytes_give_bytes_and_the_input_is_not_modified(name: str, size: int) -> None:
    enhance = ENHANCEMENTS.get(name)
    for kind, image in draw_inputs(size).items():
        before = image.copy()
        enhanced = enhance(image)
        assert enhanced.dtype == np.uint8, kind
        assert enhanced.shape == (size, size, 3), kind
        assert not np.shares_memory(enhanced, image), kind
        np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("name", ENHANCEMENTS)
def test_the_same_picture_gives_the_same_bytes(name: str) -> None:
    enhance = ENHANCEMENTS.get(name)
    for image in draw_inputs(96).values():
        first, again, copied = enhance(image), enhance(image), enhance(image.copy())
        np.testing.assert_array_equal(first, again)
        np.testing.assert_array_equal(first, copied)


@pytest.mark.parametrize("name", ENHANCEMENTS)
def test_colours_are_taken_in_the_order_red_green_blue(name: str) -> None:
    """A filter whose channels were exchanged would differ; one that treats them alike may not."""
    image = draw_inputs(96)["disc"]
    enhanced = ENHANCEMENTS.get(name)(image).astype(int)
    distance = [np.abs(enhanced - image[..., order]).mean() for order in ([0, 1, 2], [2, 1, 0])]
    assert distance[0] < distance[1]


@pytest.mark.parametrize("target", FLOAT)
def test_an_engine_carries_its_enhancements_and_predict_applies_them(
    target: str, fitted_parent: Callable[[str], FittedParent], tmp_path: Path
) -> None:
    name, _, precision = target.partition(":")
    backend = BACKENDS.get(name)()
    if not backend.available().available:
        pytest.skip(backend.available().reason)
    spec = replace(SPEC, preprocessing=ENHANCED, backend=name, precision=precision)
    source = fitted_parent("cnn").convert(backend.info.precisions[precision].derived_from)
    if source.suffix == ".keras":
        save_model(load_model(source), spec, tmp_path / "model.keras")
        source = tmp_path / "model.keras"
    file = tmp_path / backend.convert(source, precision, spec, None, tmp_path).file
    picture = draw_pictures(1, 48, 7, seed=8)[0][0]
    Image.fromarray(picture).save(tmp_path / "picture.png")

    with open_engine(file) as engine:
        assert engine.spec.preprocessing == ENHANCED
        plain = replace(ENHANCED, enhance=())
        expected, without = (
            engine.predict(preprocess_image(picture, preprocessing)[np.newaxis])[0]
            for preprocessing in (ENHANCED, plain)
        )
    (prediction,) = predict_pictures(file, [tmp_path / "picture.png"]).predictions
    received = list(prediction.probabilities.values())
    np.testing.assert_allclose(received, expected, atol=1e-5)
    assert np.abs(received - without).max() > 1e-3, "the twin: it would be seen if it were left out"


def test_a_description_from_before_enhancements_has_none(tmp_path: Path) -> None:
    document = json.loads(dump_spec(SPEC))
    del document["preprocessing"]["enhance"]
    assert parse_spec(json.dumps(document), tmp_path / "old.tflite") == SPEC


def test_a_description_with_an_unknown_enhancement_is_refused(tmp_path: Path) -> None:
    document = asdict(SPEC)
    document["preprocessing"]["enhance"] = ["hair_removed"]
    with pytest.raises(DataError, match=r"new\.onnx needs .*Did you mean 'hair_removal'"):
        parse_spec(json.dumps(document), tmp_path / "new.onnx")
