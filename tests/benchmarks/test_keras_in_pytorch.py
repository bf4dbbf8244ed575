"""A network that PyTorch trains is Keras' own: same outputs, gradients and blocks to skip."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from click import ClickException

from lesiontk.backends.keras.backend import load_model, read_spec, save_model
from lesiontk.models import ARCHITECTURES
from lesiontk.models.architecture import Architecture, Normalization, build_model
from lesiontk.system.frameworks import import_keras, import_tensorflow
from lesiontk.train.stochastic_depth import _list_blocks, add_stochastic_depth
from tests.loose_modules import BENCHMARKS, load_benchmark

torch = pytest.importorskip("torch", reason="PyTorch is no dependency: pip install torch")
ENGINES = sorted((BENCHMARKS / "engines").glob("*/keras_float32.keras"))
SIZE = 32


@pytest.fixture(scope="module")
def reader() -> ModuleType:
    return load_benchmark("keras_in_pytorch")


def save_network(file: Path, architecture: Architecture) -> Any:
    """Write an untrained network of 7 classes and return Keras' model of its logits."""
    # Of some random networks a value lies so near a ReLU's border that rounding decides its side.
    import_keras().utils.set_random_seed(4)
    model = build_model(architecture, image_size=SIZE, classes=7)
    draw = np.random.default_rng(4)
    model.set_weights([value + draw.normal(0, 0.001, value.shape) for value in model.get_weights()])
    spec = read_spec(ENGINES[0])
    spec = replace(spec, preprocessing=replace(spec.preprocessing, image_size=SIZE))
    save_model(model, spec, file)
    return import_keras().Model(model.input, model.get_layer("logits").output)


def tensor_from(images: np.ndarray[Any, Any]) -> Any:
    """Return images [N, S, S, 3] in PyTorch's order of axes."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float()


def residual_body(x: Any) -> Any:
    """Return the features of two residual blocks and an addition that is none."""
    layers = import_keras().layers
    x = layers.Conv2D(6, 3, 2, name="stem")(x)
    x = layers.Add(name="first")([layers.Conv2D(6, 3, padding="same", name="a")(x), x])
    x = layers.Add(name="second")([x, layers.Conv2D(6, 3, padding="same", name="b")(x)])
    return layers.Add(name="projected")(
        [layers.Conv2D(6, 1, name="c")(x), layers.Conv2D(6, 3, padding="same", name="d")(x)]
    )


RESIDUAL = Architecture("residual", SIZE, Normalization(1 / 128, (-1.0,) * 3), residual_body)


@pytest.mark.parametrize("file", ENGINES, ids=lambda file: file.parent.name)
def test_a_network_answers_as_in_keras(reader: ModuleType, file: Path) -> None:
    network = reader.KerasNetwork(file).eval()
    images = np.random.default_rng(1).integers(0, 256, (4, network.size, network.size, 3))
    expected = load_model(file).predict(images.astype(np.float32), verbose=0)
    with torch.no_grad():
        said = network(tensor_from(images)).softmax(1)
    np.testing.assert_allclose(said.numpy(), expected, atol=1e-4)


@pytest.mark.parametrize(
    "name",
    [
        "cnn",
        "efficientnet_lite0",
        "vgg16",
        pytest.param("efficientnet_lite1", marks=pytest.mark.slow),
        pytest.param("efficientnet_lite2", marks=pytest.mark.slow),
        pytest.param("resnet152v2", marks=pytest.mark.slow),
    ],
)
def test_outputs_and_gradients_are_those_of_keras(
    reader: ModuleType, name: str, tmp_path: Path
) -> None:
    """With the moving statistics: a batch's own, of few values, enlarge every rounding."""
    tf = import_tensorflow()
    model = save_network(tmp_path / "random.keras", ARCHITECTURES.get(name))
    network = reader.KerasNetwork(tmp_path / "random.keras").train()
    network.frozen = True
    images = np.random.default_rng(5).uniform(0, 255, (2, SIZE, SIZE, 3)).astype(np.float32)
    with tf.GradientTape() as tape:
        expected = model(images, training=False)
        value = tf.reduce_mean(tf.square(expected))
    gradients = tape.gradient(value, model.trainable_variables)
    logits = network(tensor_from(images))
    (logits**2).mean().backward()
    scale = float(np.abs(expected).max())
    np.testing.assert_allclose(logits.detach().numpy(), expected, atol=1e-3 * scale)
    ours = [
        (layer, reader.keras_from_torch(kinds[layer], weight.grad))
        for kinds in [{layer["name"]: layer["class_name"] for layer in network.layers}]
        for layer, weights in network.layer_weights().items()
        for weight in weights
    ]
    assert len(ours) == len(gradients)
    for (layer, gradient), theirs in zip(ours, gradients, strict=True):
        off = np.linalg.norm(gradient - theirs.numpy()) / max(np.linalg.norm(theirs), 1e-30)
        assert off < 1e-4, layer


def test_batch_statistics_are_learned_as_in_keras(reader: ModuleType, tmp_path: Path) -> None:
    model = save_network(tmp_path / "random.keras", ARCHITECTURES.get("cnn"))
    network = reader.KerasNetwork(tmp_path / "random.keras").train()
    images = np.random.default_rng(6).uniform(0, 255, (16, SIZE, SIZE, 3)).astype(np.float32)
    expected = model(images, training=True).numpy()
    said = network(tensor_from(images)).detach().numpy()
    np.testing.assert_allclose(said, expected, atol=1e-3 * np.abs(expected).max())
    norm = model.get_layer("block3_bn")
    for number, value in enumerate(norm.get_weights()):
        ours = getattr(network, f"block3_bn:{number}").detach().numpy()
        np.testing.assert_allclose(ours, value, rtol=1e-3, atol=1e-4)


def test_frozen_statistics_stay(reader: ModuleType, tmp_path: Path) -> None:
    save_network(tmp_path / "random.keras", ARCHITECTURES.get("cnn"))
    network = reader.KerasNetwork(tmp_path / "random.keras").train()
    before = {name: value.clone() for name, value in network.named_buffers()}
    images = torch.rand(4, 3, SIZE, SIZE) * 255
    network.frozen = True
    network(images)
    assert all(torch.equal(before[name], value) for name, value in network.named_buffers())
    network.frozen = False
    network(images)
    assert not all(torch.equal(before[name], value) for name, value in network.named_buffers())


@pytest.mark.parametrize("architecture", ["residual", "efficientnet_lite0"])
def test_the_blocks_to_skip_are_those_of_lesiontk(
    reader: ModuleType, architecture: str, tmp_path: Path
) -> None:
    known = RESIDUAL if architecture == "residual" else ARCHITECTURES.get(architecture)
    model = save_network(tmp_path / "blocks.keras", known)
    network = reader.KerasNetwork(tmp_path / "blocks.keras")
    assert reader.list_blocks(network.layers) == _list_blocks(model)
    network.skip_blocks(0.4)
    changed = add_stochastic_depth(model, 0.4)
    for name, (branch, rate) in network.skipped.items():
        layer = changed.get_layer(name)
        assert (layer.branch, layer.rate) == (branch, pytest.approx(rate))


def test_a_skipped_block_adds_nothing_or_more(reader: ModuleType, tmp_path: Path) -> None:
    save_network(tmp_path / "blocks.keras", RESIDUAL)
    network = reader.KerasNetwork(tmp_path / "blocks.keras").train()
    network.skip_blocks(0.5)
    shortcut, branch = torch.ones(64, 6, 2, 2), torch.full((64, 6, 2, 2), 3.0)
    sums = reader.add(network, {"name": "second"}, [shortcut, branch], [])
    assert {round(float(value)) for value in sums.unique()} == {1, 7}
    network.eval()
    sums = reader.add(network, {"name": "second"}, [shortcut, branch], [])
    assert {float(value) for value in sums.unique()} == {4.0}


def test_a_network_without_a_block_skips_none(reader: ModuleType, tmp_path: Path) -> None:
    save_network(tmp_path / "cnn.keras", ARCHITECTURES.get("cnn"))
    with pytest.raises(ClickException, match=r"stochastic_depth is 0\.2, .* expected 0\."):
        reader.KerasNetwork(tmp_path / "cnn.keras").skip_blocks(0.2)


def test_a_layer_that_is_not_known_is_named(reader: ModuleType, tmp_path: Path) -> None:
    keras = import_keras()
    image = keras.Input((32, 32, 3), name="image")
    tensor = keras.layers.Conv2D(4, 3, dilation_rate=2, name="wide")(image)
    tensor = keras.layers.Dense(7)(keras.layers.GlobalAveragePooling2D()(tensor))
    model = keras.Model(image, keras.layers.Softmax()(tensor))
    save_model(model, read_spec(ENGINES[0]), tmp_path / "wide.keras")
    with pytest.raises(ClickException, match=r"layer wide has dilation_rate \[2, 2\]"):
        reader.KerasNetwork(tmp_path / "wide.keras")
