"""Models trained elsewhere: built anew and equal, or refused with the layer's name."""

from __future__ import annotations

import json
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lesiontk.errors import DataError, UsageError
from lesiontk.models import ARCHITECTURES, imported_layers
from lesiontk.models.architecture import build_model
from lesiontk.models.imported_model import match_labels
from lesiontk.system.frameworks import import_keras
from tests.models.foreign_models import (
    LABELS,
    PICTURES,
    SIZE,
    answers,
    bring_in,
    save,
    settle,
)


def build_rich_model(keras: Any, activation: str | None = "softmax") -> Any:
    """A branch, a skip, a separable convolution, a model in the model, layers for training only."""
    layers = keras.layers
    image = keras.Input((SIZE, SIZE, 3), name="picture")
    x = layers.RandomFlip(name="flip")(image)
    x = layers.Rescaling(1 / 127.5, -1.0, name="to_unit")(x)
    x = layers.ZeroPadding2D(1)(x)
    x = layers.Conv2D(8, 3, strides=2, activation="relu", name="stem")(x)
    left = layers.SeparableConv2D(8, 3, padding="same", use_bias=False)(x)
    left = layers.BatchNormalization(epsilon=0.01, name="norm")(left)
    left = layers.LeakyReLU(0.1, name="leaky")(left)
    right = layers.DepthwiseConv2D(3, padding="same", dilation_rate=2)(x)
    right = layers.ReLU(max_value=6.0)(right)
    x = layers.Add()([left, right])
    gate = layers.GlobalAveragePooling2D(keepdims=True)(x)
    gate = layers.Conv2D(8, 1, activation="sigmoid", name="gate")(gate)
    x = layers.Multiply()([x, gate])
    x = layers.Concatenate()([layers.MaxPooling2D()(x), layers.AveragePooling2D(2)(x)])
    tail = keras.Sequential(
        [
            keras.Input((8, 8, 16)),
            layers.Conv2D(6, 1, groups=2, name="inner"),
            layers.Activation("tanh"),
            layers.Flatten(),
            layers.Dropout(0.5),
        ],
        name="tail",
    )
    x = layers.Dense(12, activation="elu")(tail(x))
    return settle(keras.Model(image, layers.Dense(3, activation=activation, name="top")(x)))


def test_a_model_of_keras_3_is_built_anew(keras3: Any, tmp_path: Path) -> None:
    source = build_rich_model(keras3)
    found = bring_in(save(source, tmp_path / "rich.keras"))
    np.testing.assert_allclose(answers(found.model), answers(source), atol=1e-5)
    assert type(found.model).__module__.startswith("tf_keras")
    assert found.left_out == ("flip",)
    assert np.ptp(answers(source), axis=0).max() > 0.02  # so that a mistake would show
    names = [layer.name for layer in found.model.layers]
    assert names[-2:] == ["logits", "probabilities"]
    assert {"stem", "norm", "inner"} <= set(names)


@pytest.mark.parametrize("suffix", ["keras", "h5", ""])
def test_a_model_of_keras_2_is_built_anew(suffix: str, tmp_path: Path) -> None:
    source = build_rich_model(import_keras())
    path = save(source, tmp_path / f"rich.{suffix}" if suffix else tmp_path / "saved_model")
    found = bring_in(path)
    np.testing.assert_allclose(answers(found.model), answers(source), atol=1e-5)


def test_an_h5_file_is_opened_by_the_keras_that_wrote_it(keras3: Any, tmp_path: Path) -> None:
    source = build_rich_model(keras3)
    found = bring_in(save(source, tmp_path / "rich.h5"))
    np.testing.assert_allclose(answers(found.model), answers(source), atol=1e-5)


def test_labels_come_into_the_order_of_the_task(keras3: Any, tmp_path: Path) -> None:
    source = build_rich_model(keras3)
    path = save(source, tmp_path / "rich.keras")
    found = bring_in(path, labels=("mel", "akiec", "bcc"))
    np.testing.assert_allclose(answers(found.model), answers(source)[:, [1, 2, 0]], atol=1e-5)
    with pytest.raises(UsageError, match=r"imported\.labels are mel, nv, bcc; expected akiec, bcc"):
        bring_in(path, labels=("mel", "nv", "bcc"))
    with pytest.raises(DataError, match="has 3 classes, but there are 2 labels"):
        bring_in(path, labels=("akiec", "bcc"))


def test_labels_are_known_whatever_their_case() -> None:
    assert match_labels(("MEL", "Akiec", "bcc"), LABELS) == ("mel", "akiec", "bcc")
    assert match_labels(("b", "B"), ("B", "b")) == ("b", "B")
    for labels, order in ((("mel", "MEL", "bcc"), LABELS), (("B", "b", "b"), ("B", "b"))):
        with pytest.raises(UsageError, match=r"imported\.labels are "):
            match_labels(labels, order)
    with pytest.raises(UsageError, match="Did you mean 'akiec'"):
        match_labels(("akiek", "bcc", "mel"), LABELS)


def test_logits_become_probabilities(keras3: Any, tmp_path: Path) -> None:
    source = build_rich_model(keras3, activation=None)
    found = bring_in(save(source, tmp_path / "rich.keras"))
    powers = np.exp(answers(source) - answers(source).max(axis=1, keepdims=True))
    expected = powers / powers.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(answers(found.model), expected, atol=1e-5)


def test_one_sigmoid_is_the_second_of_two_labels(keras3: Any, tmp_path: Path) -> None:
    rich = build_rich_model(keras3)
    x = keras3.layers.Dense(1)(rich.layers[-2].output)
    source = keras3.Model(rich.input, keras3.layers.Activation("sigmoid")(x))
    path = save(source, tmp_path / "binary.keras")
    expected = answers(source)
    found = bring_in(path, labels=("akiec", "bcc"))
    np.testing.assert_allclose(answers(found.model)[:, 1:], expected, atol=1e-5)
    swapped = bring_in(path, labels=("bcc", "akiec"))
    np.testing.assert_allclose(answers(swapped.model)[:, :1], expected, atol=1e-5)


@pytest.mark.parametrize(("pixels", "scale", "offset"), [("0..1", 255, 0), ("-1..1", 127.5, 1)])
def test_pixels_are_brought_to_what_the_model_was_fed(
    pixels: str, scale: float, offset: float, keras3: Any, tmp_path: Path
) -> None:
    layers = keras3.layers
    source = keras3.Sequential(
        [
            keras3.Input((SIZE, SIZE, 3)),
            layers.Conv2D(4, 3, activation="relu"),
            layers.GlobalMaxPooling2D(),
            layers.Dense(3, activation="softmax"),
        ]
    )
    found = bring_in(save(settle(source), tmp_path / "unit.keras"), pixels=pixels)
    expected = answers(source, PICTURES / scale - offset)
    np.testing.assert_allclose(answers(found.model), expected, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_registered_architecture_saved_by_keras_3_is_imported(
    name: str, keras3: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    architecture = ARCHITECTURES.get(name)
    for module in ("lesiontk.models.architecture", architecture.body.__module__):
        monkeypatch.setattr(f"{module}.import_keras", lambda: keras3)
    source = settle_gently(build_model(architecture, image_size=SIZE, classes=3), keras3)
    assert type(source).__module__.startswith("keras.")
    path = save(source, tmp_path / "model.keras")
    monkeypatch.undo()
    found = bring_in(path)
    np.testing.assert_allclose(answers(found.model), answers(source), atol=1e-4)
    ours = build_model(architecture, image_size=SIZE, classes=3)
    assert found.model.count_params() == ours.count_params()


def settle_gently(model: Any, keras: Any) -> Any:
    """Small changes of the initializer's weights, so that a deep network keeps its scale."""
    generator = np.random.default_rng(7)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.set_weights(
                [w * generator.uniform(0.9, 1.1, w.shape) for w in layer.get_weights()]
            )
    return model


def test_an_application_of_keras_3_is_imported(keras3: Any, tmp_path: Path) -> None:
    options = {"input_shape": (SIZE, SIZE, 3), "include_top": False, "weights": None}
    body = keras3.applications.MobileNetV2(**options, pooling="avg")
    top = keras3.layers.Dense(3, activation="softmax")(body.output)
    source = keras3.Model(body.input, top)
    found = bring_in(save(source, tmp_path / "application.keras"), pixels="-1..1")
    received = answers(found.model)
    np.testing.assert_allclose(received, answers(source, PICTURES / 127.5 - 1), atol=1e-4)


def test_an_adapted_normalization_becomes_a_rescaling(keras3: Any, tmp_path: Path) -> None:
    layers = keras3.layers
    normalization = layers.Normalization()
    normalization.adapt(PICTURES.astype(np.float32))
    source = keras3.Sequential(
        [
            keras3.Input((SIZE, SIZE, 3)),
            normalization,
            layers.Conv2D(4, 3),
            layers.GlobalAveragePooling2D(),
            layers.Dense(3, activation="softmax"),
        ]
    )
    found = bring_in(save(source, tmp_path / "model.keras"))
    np.testing.assert_allclose(answers(found.model), answers(source), atol=1e-5)


# ------------------------------------------------------------------------- refusals


def _with(make: Callable[[Any, Any], Any]) -> Callable[[Any], Any]:
    """A model with `make` between pooling and the last layer."""

    def build(keras: Any) -> Any:
        image = keras.Input((SIZE, SIZE, 3))
        x = make(keras.layers, keras.layers.Conv2D(4, 3)(image))
        x = keras.layers.GlobalAveragePooling2D()(x)
        return keras.Model(image, keras.layers.Dense(3, activation="softmax")(x))

    return build


REFUSED = {
    "'centre' (UnitNormalization)": _with(lambda k, x: k.UnitNormalization(name="centre")(x)),
    "'groups' (GroupNormalization)": _with(lambda k, x: k.GroupNormalization(2, name="groups")(x)),
}


@pytest.mark.parametrize(("said", "build"), REFUSED.items())
def test_a_layer_that_is_not_understood_is_named(
    said: str, build: Callable[[Any], Any], keras3: Any, tmp_path: Path
) -> None:
    path = save(build(keras3), tmp_path / "model.keras")
    with pytest.raises(DataError) as caught:
        bring_in(path)
    assert said in str(caught.value)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_layer_of_the_users_own_is_named_in_one_line(
    suffix: str, keras: Any, tmp_path: Path
) -> None:
    class Sharpen(keras.layers.Layer):  # type: ignore[misc, name-defined]
        def call(self, x: Any) -> Any:
            return 2 * x

    build = _with(lambda k, x: keras.Sequential([Sharpen(name="edges")], name="inner")(x))
    path = save(build(keras), tmp_path / f"model{suffix}")
    with pytest.raises(DataError) as caught:
        bring_in(path)
    said = str(caught.value)
    assert said.startswith("layer 'edges' (Sharpen) cannot be imported: ")
    assert "\n" not in said
    assert "config" not in said


@pytest.mark.parametrize("kind", ["keras", "registered"])
def test_a_layer_of_the_users_own_is_not_taken_for_one_of_its_name(
    kind: str, keras: Any, tmp_path: Path
) -> None:
    class ReLU(keras.layers.Layer):  # type: ignore[misc, name-defined]
        def call(self, x: Any) -> Any:
            return 2 * x

    if kind == "registered":
        keras.saving.register_keras_serializable(package="mine")(ReLU)
    path = save(_with(lambda k, x: ReLU(name="double")(x))(keras), tmp_path / "model.keras")
    keras.saving.get_custom_objects().clear()
    with pytest.raises(DataError, match=r"layer 'double' \(ReLU\).* it is a custom class"):
        bring_in(path)


@pytest.mark.parametrize("suffix", [".keras", ".h5", ""])
def test_code_in_the_file_is_not_run(
    suffix: str, keras: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if not suffix and keras.__version__.startswith("3."):
        pytest.skip("Keras 3 writes no SavedModel with layers")
    build = _with(
        lambda k, x: k.Lambda(
            lambda y: (__import__("sys").stdout.write("ran"), y)[1], name="double"
        )(x)
    )
    path = save(build(keras), tmp_path / f"model{suffix}")
    assert "ran" in capsys.readouterr().out  # so that it would show
    with pytest.raises(DataError, match=r"layer 'double' \(Lambda\) cannot be imported"):
        bring_in(path)
    assert "ran" not in capsys.readouterr().out


def test_a_function_of_the_users_own_is_refused(keras: Any, tmp_path: Path) -> None:
    def bend(x: Any) -> Any:
        return x * x

    path = save(
        _with(lambda k, x: k.Conv2D(4, 1, activation=bend, name="bent")(x))(keras),
        tmp_path / "model.keras",
    )
    with pytest.raises(DataError, match=r"layer 'bent' \(Conv2D\).* its activation is"):
        bring_in(path)


def test_what_cannot_be_loaded_is_told_in_one_line(keras3: Any, tmp_path: Path) -> None:
    path = save(_with(lambda k, x: k.Conv2D(4, 1)(x))(keras3), tmp_path / "model.keras")
    config = read_config(path)
    config["config"]["layers"].pop(1)  # others refer to it
    with pytest.raises(DataError, match=r"model\.keras cannot be loaded") as caught:
        bring_in(write_config(path, config))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_an_h5_file_that_keras_3_writes_and_cannot_read_is_asked_for_as_keras(
    keras3: Any, tmp_path: Path
) -> None:
    """The number is an argument of an operation, which the older format does not keep."""
    path = save(_with(lambda k, x: k.Conv2D(4, 1)(x) + 3.0)(keras3), tmp_path / "model.h5")
    with pytest.raises(DataError, match=r"cannot be .*save (it|the model) as \.keras\.$"):
        bring_in(path)


def test_a_layer_that_is_not_known_is_named_without_guesses(keras3: Any, tmp_path: Path) -> None:
    def attend(k: Any, x: Any) -> Any:
        x = k.Reshape((-1, x.shape[-1]))(x)
        x = k.MultiHeadAttention(1, 4, name="attention")(x, x)
        return k.Reshape((1, -1, x.shape[-1]))(x)

    path = save(_with(attend)(keras3), tmp_path / "model.keras")
    with pytest.raises(DataError, match=r"'attention' \(Multi.*layers in lesiontk.* of those\.$"):
        bring_in(path)


def read_config(path: Path) -> Any:
    with zipfile.ZipFile(path) as archive:
        return json.loads(archive.read("config.json"))


def write_config(path: Path, config: Any) -> Path:
    """Change the description in a ``.keras`` file."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members["config.json"] = json.dumps(config).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def test_an_initializer_of_the_users_own_is_not_needed(keras3: Any, tmp_path: Path) -> None:
    def start(shape: Any, dtype: Any = None) -> Any:
        return np.zeros(shape)

    build = _with(lambda k, x: k.Conv2D(4, 1, kernel_initializer=start)(x))
    source = settle(build(keras3))
    found = bring_in(save(source, tmp_path / "model.keras"))
    np.testing.assert_allclose(answers(found.model), answers(source), atol=1e-5)


def test_a_model_that_is_code_is_refused(keras3: Any, tmp_path: Path) -> None:
    class Net(keras3.Model):  # type: ignore[misc, name-defined]
        def call(self, x: Any) -> Any:
            return x

    model = Net()
    model(PICTURES)
    path = save(model, tmp_path / "net.keras")
    with pytest.raises(DataError, match=r"\(Net\) is not a functional model"):
        bring_in(path)


def test_an_exported_saved_model_has_no_layers(keras3: Any, tmp_path: Path) -> None:
    model = _with(lambda k, x: k.ReLU()(x))(keras3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.export(str(tmp_path / "exported"), verbose=False)
    with pytest.raises(DataError, match="is a SavedModel without Keras' layers"):
        bring_in(tmp_path / "exported")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("model.keras", b"PK\x05\x06" + bytes(18), "without Keras' metadata"),
        ("model.pt", b"x", "is not a Keras model"),
        ("model.h5", b"x", "is not a Keras model"),
        ("model.h5", b"\x89HDF\r\n\x1a\n", "contains no Keras model"),
        ("folder/readme", b"x", "contains no saved_model.pb"),
    ],
)
def test_what_is_no_keras_model_is_refused(
    name: str, content: bytes, said: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    with pytest.raises(DataError, match=said):
        bring_in(path.parent if "/" in name else path)


@pytest.mark.parametrize("config", ["[]", "{}", '{"class_name": "Functional", "config": []}'])
def test_a_configuration_that_cannot_be_read_is_refused(config: str, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "model.keras", "w") as archive:
        archive.writestr("metadata.json", '{"keras_version": "3.0"}')
        archive.writestr("config.json", config)
    with pytest.raises(DataError, match=r"has no known description|holds \[\] for a"):
        bring_in(tmp_path / "model.keras")


def test_other_shapes_are_refused(keras3: Any, tmp_path: Path) -> None:
    def build(shape: tuple[int | None, int | None, int]) -> Path:
        image = keras3.Input(shape)
        x = keras3.layers.GlobalAveragePooling2D()(keras3.layers.Conv2D(4, 3)(image))
        top = keras3.layers.Dense(3, activation="softmax")(x)
        return save(keras3.Model(image, top), tmp_path / "model.keras")

    for shape in ((None, 32, 3), (32, 48, 3), (32, 32, 1)):
        with pytest.raises(DataError, match=r"expected \[N, S, S, 3\]"):
            bring_in(build(shape))
    with pytest.raises(UsageError, match=r"takes 48 x 48 pixels, but data\.image_size is 32"):
        bring_in(build((48, 48, 3)))


def test_a_model_for_images_of_any_size_is_taken_at_that_of_the_images(
    keras3: Any, tmp_path: Path
) -> None:
    image = keras3.Input((None, None, 3))
    x = keras3.layers.Conv2D(4, 3, activation="relu")(image)
    inner = keras3.Sequential([keras3.Input((None, None, 4)), keras3.layers.DepthwiseConv2D(3)])
    x = keras3.layers.GlobalAveragePooling2D()(inner(x))
    top = keras3.layers.Dense(3, activation="softmax")(x)
    made = bring_in(save(keras3.Model(image, top), tmp_path / "model.keras"))
    assert made.model.input_shape == (None, SIZE, SIZE, 3)


def test_a_mistake_in_the_rebuilding_is_found_out(
    keras3: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the epsilon of Keras 2 instead of the model's own, the outputs tell."""
    path = save(build_rich_model(keras3), tmp_path / "rich.keras")
    kept = {**imported_layers.KEPT, "BatchNormalization": ("axis", "momentum")}
    monkeypatch.setattr(imported_layers, "KEPT", kept)
    with pytest.raises(DataError, match="was rebuilt and its outputs differ"):
        bring_in(path)
