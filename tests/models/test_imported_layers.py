"""Layers, activations and operations of both Kerases: each is built anew and answers alike.

A model holds a family of them side by side, so that a mistake in one shows in its outputs.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lesiontk.errors import DataError
from lesiontk.models.imported_functions import ACTIVATIONS
from lesiontk.models.imported_model import ImportedModel, import_model
from lesiontk.system.frameworks import import_tensorflow

LABELS = ("akiec", "bcc", "mel")
SIZE = 16
GENERATOR = np.random.default_rng(3)
PICTURES: NDArray[np.uint8] = (
    GENERATOR.uniform(0, 256, (6, SIZE, SIZE, 3)) * GENERATOR.uniform(0.1, 1, (6, 1, 1, 3))
).astype(np.uint8)


def is_keras_3(keras: Any) -> bool:
    return str(keras.__version__).startswith("3.")


def settle(model: Any, seed: int = 5) -> Any:
    """Give every weight another value than its initializer; positive where it is a scale."""
    generator = np.random.default_rng(seed)
    model.set_weights(
        [
            generator.uniform(0.5, 1.5, w.shape)
            if w.ndim < 2
            else generator.normal(0, 0.3, w.shape)
            for w in model.get_weights()
        ]
    )
    return model


def bring_in(model: Any, folder: Path, pixels: str = "0..255") -> ImportedModel:
    """Save the model as its Keras does, and import the file."""
    path = folder / ("model.keras" if type(model).__module__.startswith("keras.") else "model.h5")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save(str(path))
    count = 2 if np.prod(model.output_shape[1:]) == 1 else 3
    return import_model(path, pixels, LABELS[:count], LABELS[:count], PICTURES)


def answers(model: Any, pictures: NDArray[Any] = PICTURES) -> NDArray[np.float32]:
    return np.asarray(model(pictures.astype(np.float32), training=False))


def build(keras: Any, *branches: Callable[[Any], Any], images: bool = False) -> Any:
    """A model of branches side by side, behind a convolution, or of the `images` themselves."""
    k = keras.layers
    image = keras.Input((SIZE, SIZE, 3))
    x = image
    if not images:
        x = k.Conv2D(4, 3, name="stem")(k.Rescaling(1 / 127.5, -1.0)(image))
    pooled = [k.GlobalAveragePooling2D()(branch(x)) for branch in branches]
    joined = k.Concatenate()(pooled) if len(pooled) > 1 else pooled[0]
    model = settle(keras.Model(image, k.Dense(3, activation="softmax", name="top")(joined)))
    top = model.get_layer("top")
    top.set_weights([w / (5 * len(branches)) for w in top.get_weights()])
    return model


def shrink(layer: Any) -> None:
    """Make weights small enough for pixels up to 255."""
    layer.set_weights([w / 100 for w in layer.get_weights()])


def check(model: Any, found: ImportedModel) -> None:
    """The same answers, which differ from picture to picture."""
    np.testing.assert_allclose(answers(found.model), answers(model), atol=1e-5)
    assert np.ptp(answers(model), axis=0).max() > 1e-3
    assert type(found.model).__module__.startswith("tf_keras")


# ----------------------------------------------------------------------- activations


def test_activations_by_name_answer_as_their_keras_defines_them(keras: Any, tmp_path: Path) -> None:
    names = [n for n in ACTIVATIONS if is_keras_3(keras) or n not in ("hard_silu", "hard_swish")]
    k = keras.layers
    model = build(
        keras,
        *[lambda x, n=name: k.Activation(n)(x) for name in names],
        lambda x: k.Conv2D(4, 1, activation="relu6")(x),
        lambda x: k.Conv2D(4, 1, activation="hard_sigmoid")(x),
        lambda x: k.DepthwiseConv2D(3, activation="leaky_relu")(x),
        lambda x: k.Dense(5, activation="gelu")(x),
    )
    check(model, bring_in(model, tmp_path))


def test_hard_sigmoid_is_that_of_the_keras_that_wrote_it(keras: Any, tmp_path: Path) -> None:
    model = build(keras, lambda x: keras.layers.Activation("hard_sigmoid", name="gate")(x))
    found = bring_in(model, tmp_path)
    check(model, found)
    slope = found.model.get_layer("gate_shift").scale / 6
    assert slope == pytest.approx(1 / 6 if is_keras_3(keras) else 0.2)


def test_activation_layers_are_built_anew(keras: Any, tmp_path: Path) -> None:
    k = keras.layers
    model = build(
        keras,
        lambda x: k.PReLU(shared_axes=[1, 2])(x),
        lambda x: k.PReLU()(x),
        lambda x: k.ELU(0.5)(x),
        lambda x: k.LeakyReLU(0.1)(x),
        lambda x: k.ReLU(6.0)(x),
        lambda x: k.ReLU(3.0, negative_slope=0.2, threshold=0.1)(x),
        lambda x: k.Softmax()(x),
        lambda x: k.Conv2D(4, 1, activation=k.LeakyReLU(0.3))(x),
        lambda x: k.Dense(4, activation=k.ReLU(6.0))(x),
    )
    check(model, bring_in(model, tmp_path))


# ---------------------------------------------------------------------------- layers


def test_layers_are_built_anew(keras: Any, tmp_path: Path) -> None:
    k = keras.layers
    model = build(
        keras,
        lambda x: k.Conv2D(8, 3, groups=2)(x),
        lambda x: k.SeparableConv2D(5, 3, depth_multiplier=2, activation="relu6")(x),
        lambda x: k.SeparableConv2D(5, 3, use_bias=False, padding="same", strides=2)(x),
        lambda x: k.Conv2DTranspose(5, 3, strides=2, padding="same")(x),
        lambda x: k.Dense(6)(x),
        lambda x: k.LayerNormalization(epsilon=0.01)(x),
        lambda x: k.LayerNormalization(center=False)(k.Reshape((1, 1, 784))(x)),
        lambda x: k.UpSampling2D(2, interpolation="bilinear")(x),
        lambda x: k.Conv2D(4, 3)(k.ZeroPadding2D(((1, 2), (0, 1)))(k.Cropping2D(2)(x))),
        lambda x: k.Conv2D(4, 3)(k.Resizing(9, 7)(x)),
        lambda x: k.Minimum()([x, k.Conv2D(4, 1)(x)]),
        lambda x: k.Multiply()([x, k.GlobalMaxPooling2D(keepdims=True)(x)]),
        lambda x: k.Conv2D(2, 3)(k.Permute((2, 1, 3))(x)),
    )
    check(model, bring_in(model, tmp_path))


@pytest.mark.parametrize("kwargs", [{}, {"interpolation": "bicubic"}])
def test_a_resizing_to_the_size_that_images_have_is_left_out(
    kwargs: Any, keras: Any, tmp_path: Path
) -> None:
    k = keras.layers
    image = keras.Input((None, None, 3))
    x = k.Rescaling(1 / 255)(k.Resizing(SIZE, SIZE, name="same", **kwargs)(image))
    x = k.GlobalAveragePooling2D()(k.Conv2D(4, 3)(x))
    model = keras.Model(image, k.Dense(3, activation="softmax")(x))
    made = bring_in(model, tmp_path)
    assert "same" in made.left_out
    check(model, made)


@pytest.mark.parametrize("axis", [-1, None, (1, 2, 3), 1, (2, 3)])
def test_a_normalization_over_any_axis_is_built_anew(axis: Any, keras: Any, tmp_path: Path) -> None:
    normalization = keras.layers.Normalization(axis=axis)
    scales = np.random.default_rng(1).uniform(0.2, 1, (1, SIZE, SIZE, 3))
    normalization.adapt((PICTURES * scales).astype(np.float32))
    k = keras.layers
    image = keras.Input((SIZE, SIZE, 3))
    x = k.GlobalAveragePooling2D()(k.Conv2D(4, 3, activation="relu")(normalization(image)))
    model = keras.Model(image, k.Dense(3, activation="softmax")(x))
    check(model, bring_in(model, tmp_path))


# ------------------------------------------------------------------------ operations


def test_operations_are_built_anew(keras: Any, tmp_path: Path) -> None:
    model = build(
        keras,
        lambda x: (2.0 - x) / 3.0 + 0.5,
        lambda x: x * x - x,
        lambda x: (x + np.arange(4, dtype="float32")) * np.arange(1, 5, dtype="float32"),
        lambda x: -x,
        lambda x: x[..., ::-1] * np.arange(1, 5, dtype="float32"),
        lambda x: x[..., :2],
        *(branches_of_keras_3 if is_keras_3(keras) else branches_of_keras_2)(keras),
    )
    check(model, bring_in(model, tmp_path))


def branches_of_keras_3(keras: Any) -> list[Callable[[Any], Any]]:
    ops = keras.ops
    return [
        lambda x: ops.relu6(x + 3.0) * (1.0 / 6.0) * x,
        lambda x: ops.leaky_relu(x, 0.3),
        lambda x: ops.gelu(x, approximate=False),
        lambda x: ops.clip(x, -0.5, 1.0),
        lambda x: ops.maximum(x, 0.0),
        lambda x: ops.concatenate([x, ops.silu(x)], axis=-1),
        lambda x: x * ops.mean(x, axis=[1, 2], keepdims=True),
        lambda x: ops.hard_sigmoid(ops.cast(x, "float32")),
    ]


def branches_of_keras_2(keras: Any) -> list[Callable[[Any], Any]]:
    tf = import_tensorflow()
    return [
        lambda x: tf.nn.relu6(x + 3.0) * (1.0 / 6.0) * x,
        lambda x: tf.nn.leaky_relu(x, alpha=0.3),
        lambda x: tf.nn.gelu(x),
        lambda x: tf.clip_by_value(x, -0.5, 1.0),
        lambda x: tf.maximum(x, 0.0),
        lambda x: tf.concat([x, tf.nn.silu(x)], axis=-1),
        lambda x: x * tf.reduce_mean(x, axis=[1, 2], keepdims=True),
        lambda x: tf.sigmoid(tf.cast(x, tf.float32)),
    ]


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("name", ["mobilenet_v2", "vgg16", "densenet"])
def test_preprocess_input_within_the_model_becomes_one_step(
    name: str, padded: bool, keras: Any, tmp_path: Path
) -> None:
    k = keras.layers
    prepare = getattr(keras.applications, name).preprocess_input

    def branch(x: Any) -> Any:
        x = prepare(x)
        x = k.ZeroPadding2D(name="pad")(x) if padded else x
        return k.Conv2D(4, 3, activation="tanh", name="first")(x)

    model = build(keras, branch, images=True)
    if name == "vgg16":
        shrink(model.get_layer("first"))
    found = bring_in(model, tmp_path)
    check(model, found)
    names = [layer.name for layer in found.model.layers if layer.name != "pad"]
    assert names[:3] == ["image", "normalisation", "first"]
    factor = found.model.get_layer("normalisation").scale
    assert factor == (pytest.approx(1 / 127.5) if name == "mobilenet_v2" else 1)


@pytest.mark.parametrize("pixels", ["caffe", "imagenet"])
def test_pixels_are_brought_to_what_other_frameworks_feed(
    pixels: str, keras: Any, tmp_path: Path
) -> None:
    module = {"caffe": "vgg16", "imagenet": "densenet"}[pixels]
    prepare = getattr(keras.applications, module).preprocess_input
    k = keras.layers
    model = build(keras, lambda x: k.Conv2D(4, 3, name="first")(x), images=True)
    shrink(model.get_layer("first"))
    found = bring_in(model, tmp_path, pixels)
    expected = answers(model, prepare(PICTURES.astype(np.float32)))
    np.testing.assert_allclose(answers(found.model), expected, atol=1e-5)
    assert [layer.name for layer in found.model.layers][:3] == ["image", "normalisation", "first"]


def test_channels_that_no_convolution_reads_are_reordered_by_one(
    keras: Any, tmp_path: Path
) -> None:
    model = build(keras, lambda x: x[..., ::-1] / 255.0, images=True)
    found = bring_in(model, tmp_path)
    check(model, found)
    assert found.model.get_layer("normalisation_order").kernel_size == (1, 1)


# ----------------------------------------------------------------------------- heads


def one_place(keras: Any, image: Any) -> Any:
    k = keras.layers
    x = k.Conv2D(4, 3, activation="tanh")(k.Rescaling(1 / 127.5, -1.0)(image))
    return k.GlobalAveragePooling2D(keepdims=True)(x)


HEADS: dict[str, Callable[[Any, Any], Any]] = {
    "one place": lambda k, x: k.Dense(3, activation="softmax")(x),
    "flattened behind": lambda k, x: k.Flatten()(k.Dense(3, activation="softmax")(x)),
    "MobileNet's": lambda k, x: k.Activation("softmax")(
        k.Reshape((3,))(k.Conv2D(3, 1)(k.Dropout(0.1)(x)))
    ),
    "logits, then Softmax": lambda k, x: k.Softmax()(k.Dense(3)(k.Flatten()(x))),
    "a temperature": lambda k, x: k.Softmax()(k.Rescaling(0.5)(k.Dense(3)(k.Flatten()(x)))),
    "pooled logits": lambda k, x: k.Softmax()(k.GlobalMaxPooling2D()(k.Conv2D(3, 1)(x))),
    "one sigmoid": lambda k, x: k.Dense(1, activation="sigmoid")(k.Flatten()(x)),
    "one sigmoid at one place": lambda k, x: k.Activation("sigmoid")(k.Conv2D(1, 1)(x)),
}


@pytest.mark.parametrize("name", HEADS)
def test_heads_become_logits_and_softmax(name: str, keras: Any, tmp_path: Path) -> None:
    image = keras.Input((SIZE, SIZE, 3))
    model = settle(keras.Model(image, HEADS[name](keras.layers, one_place(keras, image))))
    found = bring_in(model, tmp_path)
    expected = answers(model).reshape(len(PICTURES), -1)
    np.testing.assert_allclose(answers(found.model)[:, -expected.shape[1] :], expected, atol=1e-5)
    assert [layer.name for layer in found.model.layers][-2:] == ["logits", "probabilities"]


def test_one_logit_is_of_the_second_of_two_labels(keras: Any, tmp_path: Path) -> None:
    image = keras.Input((SIZE, SIZE, 3))
    x = keras.layers.Flatten()(one_place(keras, image))
    model = settle(keras.Model(image, keras.layers.Dense(1)(x)))
    found = bring_in(model, tmp_path)
    expected = 1 / (1 + np.exp(-answers(model)))
    np.testing.assert_allclose(answers(found.model)[:, 1:], expected, atol=1e-5)


WRONG_HEADS: dict[str, Callable[[Any, Any], Any]] = {
    "3 outputs with sigmoid": lambda k, x: k.Dense(3, activation="sigmoid")(k.Flatten()(x)),
    "passes through a second softmax": lambda k, x: k.Softmax()(k.Softmax()(k.Flatten()(x))),
    "its activation is relu and softmax follows": lambda k, x: k.Softmax()(
        k.Dense(3, activation="relu")(k.Flatten()(x))
    ),
    "a classifier ends with a Dense layer": lambda k, x: k.Average()(
        [k.Dense(3, activation="softmax")(k.Flatten()(x)) for _ in range(2)]
    ),
}


@pytest.mark.parametrize("said", WRONG_HEADS)
def test_an_end_that_is_no_classifiers_is_refused(said: str, keras: Any, tmp_path: Path) -> None:
    image = keras.Input((SIZE, SIZE, 3))
    model = settle(keras.Model(image, WRONG_HEADS[said](keras.layers, one_place(keras, image))))
    with pytest.raises(DataError, match=rf"layer '.*' \(.*\) cannot be imported: .*{said}"):
        bring_in(model, tmp_path)


# -------------------------------------------------------------------------- refusals


def test_a_lambda_is_refused_with_the_mend(keras: Any, tmp_path: Path) -> None:
    model = build(keras, lambda x: keras.layers.Lambda(lambda v: v / 255.0, name="scale")(x))
    with pytest.raises(
        DataError,
        match=r"layer 'scale' \(Lambda\).*replace it with Keras layers, such as "
        r"Rescaling",
    ):
        bring_in(model, tmp_path)


def test_an_operation_that_is_not_known_is_named(keras: Any, tmp_path: Path) -> None:
    root = keras.ops.sqrt if is_keras_3(keras) else import_tensorflow().sqrt
    model = build(keras, lambda x: root(x * x))
    with pytest.raises(DataError, match=r"layer '.*sqrt' \(.*[sS]qrt\) cannot be imported"):
        bring_in(model, tmp_path)
