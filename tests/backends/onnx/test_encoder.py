"""Encoders: pixels, cut and pooling around a graph of someone else's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto

from lesiontk.backends import open_engine
from lesiontk.backends.onnx.encoder import (
    EncoderInterface,
    add_head,
    build_feature_graph,
    open_feature_graph,
)
from lesiontk.errors import DataError, UsageError
from lesiontk.models.imported_pixels import PIXELS
from lesiontk.records import EngineSpec, Preprocessing
from tests.encoders import write_encoder

SIZE = 32


@pytest.fixture(scope="module")
def picture() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (1, SIZE, SIZE, 3), dtype=np.uint8)


def encode(path: Path, picture: NDArray[np.uint8], **options: Any) -> NDArray[np.float32]:
    graph = build_feature_graph(path, EncoderInterface(SIZE, **options))
    (features,) = open_feature_graph(graph, 1).run(None, {"image": picture})
    assert features.dtype == np.float32
    return np.asarray(features[0])


def quarters(picture: NDArray[np.uint8], pixels: str) -> NDArray[np.float64]:
    """Return the means of the four quarters, [4, 3], after normalization."""
    layout = PIXELS[pixels]
    values = picture[0].astype(float)[..., layout.order] * layout.scale + layout.offset
    half = SIZE // 2
    return np.array(
        [values[a : a + half, b : b + half].mean(axis=(0, 1)) for a in (0, half) for b in (0, half)]
    )


@pytest.mark.parametrize("pixels", PIXELS)
@pytest.mark.parametrize("channels_last", [False, True])
def test_pixels_are_normalized_as_the_encoder_expects(
    pixels: str, channels_last: bool, picture: NDArray[np.uint8], tmp_path: Path
) -> None:
    path = write_encoder(tmp_path / "e.onnx", channels_last=channels_last)
    features = encode(path, picture, pixels=pixels)
    expected = quarters(picture, pixels).mean(axis=0)
    np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("opset", [13, 17, 18, 21])
@pytest.mark.parametrize(
    ("kind", "pooling", "tokens"),
    [
        ("tokens", "class", (True, False)),
        ("tokens", "mean", (False, True)),
        ("tokens", "class_mean", (True, True)),
        ("tokens", "auto", (True, True)),
        ("maps", "mean", (False, True)),
        ("maps", "auto", (False, True)),
    ],
)
def test_pooling(
    kind: str,
    pooling: str,
    tokens: tuple[bool, bool],
    opset: int,
    picture: NDArray[np.uint8],
    tmp_path: Path,
) -> None:
    path = write_encoder(tmp_path / "e.onnx", kind, opset=opset)
    mean = quarters(picture, "0..1").mean(axis=0)
    expected = np.concatenate([mean for wanted in tokens if wanted])
    features = encode(path, picture, pixels="0..1", pooling=pooling)
    np.testing.assert_allclose(features, expected, rtol=1e-4)


def test_a_tensor_within_the_graph_can_be_the_output(
    picture: NDArray[np.uint8], tmp_path: Path
) -> None:
    path = write_encoder(tmp_path / "e.onnx", "vector")
    inner = encode(path, picture, output="maps")
    np.testing.assert_array_equal(inner, encode(write_encoder(tmp_path / "m.onnx"), picture))
    graph = build_feature_graph(path, EncoderInterface(SIZE, output="maps"))
    assert "Concat" not in {node.op_type for node in graph.graph.node[:-2]}  # of the tokens


def test_a_half_precision_encoder_gives_the_same(
    picture: NDArray[np.uint8], tmp_path: Path
) -> None:
    half = write_encoder(tmp_path / "half.onnx", dtype=TensorProto.FLOAT16)
    whole = write_encoder(tmp_path / "whole.onnx")
    np.testing.assert_allclose(encode(half, picture), encode(whole, picture), atol=5e-3)


def test_encoder_and_head_are_an_engine(picture: NDArray[np.uint8], tmp_path: Path) -> None:
    path = write_encoder(tmp_path / "e.onnx", "tokens")
    graph = build_feature_graph(path, EncoderInterface(SIZE))
    generator = np.random.default_rng(1)
    weights = generator.normal(size=(6, 3)).astype(np.float32)
    bias = generator.normal(size=3).astype(np.float32)
    spec = EngineSpec(
        ("bkl", "mel", "nv"), Preprocessing(SIZE), "t", "onnx", "float32", "encoder e", "0" * 64
    )
    onnx.save(add_head(graph, weights, bias, spec), tmp_path / "engine.onnx")
    logits = encode(path, picture) @ weights + bias
    expected = np.exp(logits) / np.exp(logits).sum()
    with open_engine(tmp_path / "engine.onnx") as engine:
        assert engine.spec == spec
        np.testing.assert_allclose(engine.predict(picture)[0], expected, rtol=1e-4)
        assert engine.predict(np.repeat(picture, 3, axis=0)).shape == (3, 3)
        assert engine.expose_features() == 6
        for rows in (1, 3):
            probabilities, features = engine.predict_features(np.repeat(picture, rows, axis=0))
            np.testing.assert_allclose(probabilities, np.tile(expected, (rows, 1)), rtol=1e-4)
            own = np.tile(encode(path, picture), (rows, 1))
            np.testing.assert_allclose(features, own, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(engine.predict(picture)[0], expected, rtol=1e-4)


@pytest.mark.parametrize(
    ("written", "options", "error", "message"),
    [
        ({"opset": 12}, {}, DataError, r"has opset 12; expected 13 or later"),
        ({"other_input": True}, {}, DataError, r"has the inputs pixels, text; expected one"),
        ({"size": 64}, {}, UsageError, r"--image-size is 32, expected 64"),
        ({"dtype": TensorProto.INT32}, {}, DataError, r"takes INT32 .*expected float"),
        ({}, {"output": "map"}, UsageError, r"no tensor 'map'.*Did you mean 'maps'"),
        ({}, {"pixels": "imagnet"}, UsageError, r"'imagnet'.*Did you mean 'imagenet'"),
        ({}, {"pooling": "class"}, UsageError, r"--pooling is 'class' and .* expected mean"),
        ({"kind": "vector"}, {"pooling": "mean"}, UsageError, r"expected none"),
    ],
)
def test_what_is_no_such_encoder_is_refused(
    written: dict[str, Any],
    options: dict[str, Any],
    error: type[Exception],
    message: str,
    tmp_path: Path,
) -> None:
    path = write_encoder(tmp_path / "e.onnx", **written)
    with pytest.raises(error, match=message):
        build_feature_graph(path, EncoderInterface(SIZE, **options))


def test_a_file_that_is_no_graph_is_refused(tmp_path: Path) -> None:
    (tmp_path / "e.onnx").write_bytes(b"\x00\xff not a model")
    with pytest.raises(DataError, match=r"e\.onnx"):
        build_feature_graph(tmp_path / "e.onnx", EncoderInterface(SIZE))
