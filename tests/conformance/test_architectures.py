"""What every registered architecture must be, and what each family's weights must do."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lesiontk.backends import list_targets, open_engine
from lesiontk.errors import DataError, UsageError
from lesiontk.models import ARCHITECTURES
from lesiontk.models.architecture import build_model, load_initial_weights
from lesiontk.system.frameworks import import_keras
from tests.conformance.cases import each_architecture
from tests.conformance.fitted_models import FittedParent, draw_pictures

SHARED_WEIGHTS = Path(__file__).parents[2].parent / "shared" / "weights"
EVERY = each_architecture()
QUICK = each_architecture(but=["resnet152v2"])  # it takes seconds to build
CONVERTED = each_architecture(but=["resnet152v2"], engines=True)
FLOAT = [target for target in list_targets() if target.endswith(":float32")]
LOADABLE = [name for name, entry in ARCHITECTURES.items() if entry.load is not None]

Pixels = NDArray[np.float32]


def save_one_array() -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.zeros(3))
    return stream.getvalue()


NO_WEIGHTS = {
    "empty": b"",
    "text": b"no weights",
    "cut short": b"PK\x03\x04 a zip of which this is the beginning",
    "another file of NumPy's": save_one_array(),
}


@pytest.fixture(scope="session")
def smallest_model() -> Callable[[str], Any]:
    """Return a function from a name to its model of seven classes at its smallest size."""
    built: dict[str, Any] = {}

    def build(name: str) -> Any:
        if name not in built:
            architecture = ARCHITECTURES.get(name)
            built[name] = build_model(
                architecture, image_size=architecture.min_image_size, classes=7, dropout=0.2
            )
        return built[name]

    return build


def run(model: Any, output: str, pixels: Pixels) -> Pixels:
    """Return what the layer `output` gives."""
    part = import_keras().Model(model.input, model.get_layer(output).output)
    return np.asarray(part(pixels, training=False))


# ------------------------------------------------------------------- every one


@pytest.mark.parametrize("name", EVERY)
def test_it_maps_pixels_to_probabilities(name: str, smallest_model: Callable[[str], Any]) -> None:
    model = smallest_model(name)
    size = ARCHITECTURES.get(name).min_image_size
    pixels, _ = draw_pictures(3, size, 7, seed=0)
    assert model.input_shape == (None, size, size, 3)
    assert model.input.dtype == "float32"
    probabilities = np.asarray(model(pixels.astype(np.float32), training=False))
    assert probabilities.shape == (3, 7)
    assert probabilities.dtype == np.float32
    assert (probabilities >= 0).all()
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("name", QUICK)
def test_it_can_end_in_two_classes(name: str) -> None:
    architecture = ARCHITECTURES.get(name)
    model = build_model(architecture, image_size=architecture.min_image_size, classes=2)
    assert model.output_shape == (None, 2)


@pytest.mark.parametrize("name", EVERY)
def test_its_entry_and_its_model_bear_its_name(
    name: str, smallest_model: Callable[[str], Any]
) -> None:
    assert ARCHITECTURES.get(name).name == name
    assert smallest_model(name).name == name


@pytest.mark.parametrize("name", EVERY)
def test_its_first_layer_is_the_normalization_that_it_states(
    name: str, smallest_model: Callable[[str], Any]
) -> None:
    model = smallest_model(name)
    size = model.input_shape[1]
    pixels = np.random.default_rng(5).uniform(0, 255, (2, size, size, 3)).astype(np.float32)
    pixels[0, 0, 0], pixels[0, 0, 1] = 0, 255
    stated = ARCHITECTURES.get(name).normalization
    expected = pixels * np.float32(stated.scale) + np.array(stated.offset, np.float32)
    received = run(model, "normalisation", pixels)
    np.testing.assert_allclose(received, expected, atol=2e-5)
    exchanged = run(model, "normalisation", pixels[..., ::-1])
    assert np.abs(exchanged - expected).max() > 0.1  # the comparison sees another channel order


@pytest.mark.parametrize("name", EVERY)
def test_its_logits_are_not_squashed_and_softmax_alone_follows(
    name: str, smallest_model: Callable[[str], Any]
) -> None:
    model = smallest_model(name)
    logits = model.get_layer("logits")
    assert logits.activation is import_keras().activations.linear
    assert model.layers[-2] is logits
    pixels = draw_pictures(2, model.input_shape[1], 7, seed=1)[0].astype(np.float32)
    values = run(model, "logits", pixels).astype(np.float64)
    softmax = np.exp(values) / np.exp(values).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(np.asarray(model(pixels, training=False)), softmax, atol=1e-5)


@pytest.mark.parametrize("name", QUICK)
def test_the_seed_alone_decides_its_first_weights(name: str) -> None:
    def draw(seed: int) -> list[NDArray[np.float32]]:
        import_keras().utils.set_random_seed(seed)
        architecture = ARCHITECTURES.get(name)
        model = build_model(architecture, image_size=architecture.min_image_size, classes=3)
        return list(model.get_weights())

    first, again, other = draw(1), draw(1), draw(2)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize("name", LOADABLE)
def test_a_weights_file_that_does_not_exist_is_refused_by_name(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent\.h5 does not exist"):
        ARCHITECTURES.get(name).find_weights(str(tmp_path / "absent.h5"))


@pytest.mark.parametrize("name", [name for name in ARCHITECTURES if name not in LOADABLE])
def test_weights_are_refused_where_none_were_published(name: str) -> None:
    architecture = ARCHITECTURES.get(name)
    assert architecture.find_weights("none") is None
    with pytest.raises(UsageError, match=f"{name} is trained from random weights"):
        architecture.find_weights("imagenet")


@pytest.mark.parametrize("name", [name for name in LOADABLE if name != "resnet152v2"])
@pytest.mark.parametrize("content", NO_WEIGHTS.values(), ids=NO_WEIGHTS)
def test_a_file_that_holds_no_weights_is_a_data_error(
    name: str, content: bytes, smallest_model: Callable[[str], Any], tmp_path: Path
) -> None:
    path = tmp_path / ("weights.npz" if "lite" in name else "weights.h5")
    path.write_bytes(content)
    with pytest.raises(DataError, match=path.name):
        load_initial_weights(smallest_model(name), ARCHITECTURES.get(name), str(path))


# --------------------------------------------------------------------- engines


@pytest.mark.parametrize("target", FLOAT)
@pytest.mark.parametrize("name", CONVERTED)
def test_its_float_engine_agrees_with_it(
    name: str, target: str, fitted_parent: Callable[[str], FittedParent]
) -> None:
    parent = fitted_parent(name)
    with open_engine(parent.convert(target)) as engine:
        right = parent.verify(target, engine.predict(parent.pictures))
        wrong = parent.verify(target, engine.predict(parent.pictures[..., ::-1]))
    assert right.passed, [str(check) for check in right.checks]
    assert not wrong.passed


@pytest.mark.parametrize("target", ["tflite:int8", "onnx:int8"])
@pytest.mark.parametrize("name", CONVERTED)
def test_its_int8_engine_leaves_softmax_alone_in_float(
    name: str, target: str, fitted_parent: Callable[[str], FittedParent]
) -> None:
    parent = fitted_parent(name)
    parent.convert(target)
    (left,) = parent.records[target].float_operators
    assert left.lower().startswith("softmax")


@pytest.mark.parametrize("target", ["tflite:int8", "onnx:int8"])
@pytest.mark.parametrize("name", CONVERTED)
def test_its_int8_engine_agrees_with_it(
    name: str, target: str, fitted_parent: Callable[[str], FittedParent]
) -> None:
    parent = fitted_parent(name)
    answers = parent.outputs.argmax(axis=1)
    assert np.mean(answers == parent.targets) > 0.6  # the parent tells pictures apart
    with open_engine(parent.convert(target)) as engine:
        right = parent.verify(target, engine.predict(parent.pictures))
        wrong = parent.verify(target, engine.predict(parent.pictures[..., ::-1]))
    assert right.passed, [str(check) for check in right.checks]
    assert not wrong.passed


# --------------------------------------------------------------------- weights


@pytest.fixture(scope="session")
def keras_vgg16(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """Keras' own VGG16 with random weights and biases, and the file they were written to."""
    keras = import_keras()
    keras.utils.set_random_seed(11)
    source = keras.applications.VGG16(include_top=False, weights=None, input_shape=(32, 32, 3))
    for layer in source.layers:
        if layer.weights:
            layer.bias.assign(np.random.default_rng(1).normal(0, 0.5, layer.bias.shape))
    path = tmp_path_factory.mktemp("vgg16") / "vgg16.h5"
    source.save_weights(str(path))
    return source, path


def test_vgg16_gives_what_keras_gives(keras_vgg16: tuple[Any, Path]) -> None:
    source, path = keras_vgg16
    pixels = draw_pictures(4, 32, 7, seed=3)[0].astype(np.float32)
    prepared = import_keras().applications.vgg16.preprocess_input(pixels.copy())  # BGR, mean
    expected = np.asarray(source(prepared, training=False))
    ours = build_model(ARCHITECTURES.get("vgg16"), image_size=32, classes=2, weights=str(path))
    tolerance = 1e-4 * np.abs(expected).max()
    np.testing.assert_allclose(run(ours, "block5_pool", pixels), expected, atol=tolerance)

    first = ours.get_layer("block1_conv1")
    kernel, bias = first.get_weights()
    first.set_weights([kernel[:, :, ::-1, :], bias])  # as if the file's kernel were not turned
    assert np.abs(run(ours, "block5_pool", pixels) - expected).max() > 100 * tolerance


@pytest.mark.slow
def test_resnet152v2_gives_what_keras_gives(tmp_path: Path) -> None:
    keras = import_keras()
    keras.utils.set_random_seed(13)
    source = keras.applications.ResNet152V2(
        include_top=False, weights=None, input_shape=(32, 32, 3)
    )
    path = tmp_path / "resnet152v2.h5"
    source.save_weights(str(path))
    pixels = draw_pictures(2, 32, 7, seed=3)[0].astype(np.float32)
    prepared = keras.applications.resnet_v2.preprocess_input(pixels.copy())
    expected = np.asarray(source(prepared, training=False))
    architecture = ARCHITECTURES.get("resnet152v2")
    ours = build_model(architecture, image_size=32, classes=2, weights=str(path))
    tolerance = 1e-4 * np.abs(expected).max()
    np.testing.assert_allclose(run(ours, "post_relu", pixels), expected, atol=tolerance)
    assert np.abs(run(ours, "post_relu", pixels[..., ::-1]) - expected).max() > 100 * tolerance
    path.unlink()  # a quarter of a gigabyte


def lite0_arrays(model: Any) -> dict[str, Any]:
    """Return the arrays under the names that EfficientNet-Lite's weights were published with."""
    arrays = {}
    for layer in model.layers:
        if layer.name != "logits":
            for variable, value in zip(layer.weights, layer.get_weights(), strict=True):
                kind = variable.name.split("/")[-1].removesuffix(":0")
                kind = "kernel" if kind == "depthwise_kernel" else kind
                arrays[f"_{layer.name}/{kind}"] = value
    return arrays


def build_lite0(weights: str = "none") -> Any:
    return build_model(
        ARCHITECTURES.get("efficientnet_lite0"), image_size=32, classes=2, weights=weights
    )


def test_efficientnet_lite0_gets_back_the_arrays_that_were_written(tmp_path: Path) -> None:
    keras = import_keras()
    keras.utils.set_random_seed(21)
    source = build_lite0()
    np.savez(tmp_path / "lite0.npz", **lite0_arrays(source))
    keras.utils.set_random_seed(22)
    loaded, fresh = build_lite0(str(tmp_path / "lite0.npz")), build_lite0()
    pixels = draw_pictures(2, 32, 7, seed=4)[0].astype(np.float32)
    expected = run(source, "relu1", pixels)
    np.testing.assert_array_equal(run(loaded, "relu1", pixels), expected)
    assert not np.array_equal(run(fresh, "relu1", pixels), expected)


def load_lite0(model: Any, arrays: dict[str, Any], folder: Path) -> None:
    np.savez(folder / "lite0.npz", **arrays)
    architecture = ARCHITECTURES.get("efficientnet_lite0")
    load_initial_weights(model, architecture, str(folder / "lite0.npz"))


def test_efficientnet_lite0_names_the_array_that_a_file_lacks(
    smallest_model: Callable[[str], Any], tmp_path: Path
) -> None:
    model = smallest_model("efficientnet_lite0")
    arrays = lite0_arrays(model)
    del arrays["_blocks_3__bn1/moving_variance"]
    with pytest.raises(DataError, match="lacks _blocks_3__bn1/moving_variance"):
        load_lite0(model, arrays, tmp_path)


def test_efficientnet_lite0_names_the_layer_that_does_not_fit(
    smallest_model: Callable[[str], Any], tmp_path: Path
) -> None:
    model = smallest_model("efficientnet_lite0")
    arrays = lite0_arrays(model)
    arrays["_conv_stem/kernel"] = arrays["_conv_stem/kernel"][..., :-1]
    with pytest.raises(DataError, match="layer conv_stem does not match"):
        load_lite0(model, arrays, tmp_path)


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("vgg16", "vgg16_imagenet_notop.h5"),
        ("efficientnet_lite0", "efficientnet_lite0_imagenet_notop.npz"),
    ],
)
def test_the_published_imagenet_weights_fit(name: str, file: str) -> None:
    path = SHARED_WEIGHTS / file
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    architecture = ARCHITECTURES.get(name)
    architecture.find_weights(str(path))
    loaded = build_model(architecture, image_size=32, classes=2, weights=str(path))
    fresh = build_model(architecture, image_size=32, classes=2)
    for ours, theirs in zip(loaded.layers, fresh.layers, strict=True):
        if ours.weights and ours.name != "logits":
            pairs = zip(ours.get_weights(), theirs.get_weights(), strict=True)
            assert all(not np.array_equal(a, b) for a, b in pairs), ours.name
