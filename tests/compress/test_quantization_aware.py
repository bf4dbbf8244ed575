"""Fake quantization: where it stands, what it rounds to, and that it comes off again."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lesiontk.backends.tensorrt.quantize import symmetric_scale
from lesiontk.compress.batchnorm_folding import fold_batchnorm
from lesiontk.compress.keras_layers import read_layers
from lesiontk.compress.layers import Layer
from lesiontk.compress.quantization_aware import (
    Rounding,
    find_moves,
    get_inner_weights,
    plan_rounding,
    quantize_aware,
    strip_quantization,
)
from lesiontk.errors import DataError
from tests.compress.equal_outputs import pictures
from tests.compress.random_models import build_random_model
from tests.compress.small_models import build_model


def outputs_of(model: Any, names: list[str], x: Any) -> dict[str, Any]:
    from lesiontk.system.frameworks import import_keras

    parts = import_keras().Model(model.input, [model.get_layer(name).output for name in names])
    return dict(zip(names, map(np.asarray, parts(x)), strict=True))


def measure(model: Any, x: Any) -> dict[str, tuple[float, float]]:
    names = [layer.name for layer in read_layers(model)][1:]
    return {
        name: (min(0.0, float(v.min())), max(0.0, float(v.max())))
        for name, v in outputs_of(model, names, x).items()
    }


RESIDUAL = [
    Layer("image", "InputLayer", (), (8, 8, 3)),
    Layer("normalisation", "Rescaling", ("image",), (8, 8, 3)),
    Layer("a", "Conv2D", ("normalisation",), (8, 8, 4)),
    Layer("a_relu", "ReLU", ("a",), (8, 8, 4)),
    Layer("b", "Conv2D", ("a_relu",), (8, 8, 4)),
    Layer("add", "Add", ("a_relu", "b"), (8, 8, 4)),
    Layer("pad", "ZeroPadding2D", ("add",), (10, 10, 4)),
    Layer("c", "DepthwiseConv2D", ("pad",), (8, 8, 4), groups=4),
    Layer("d", "Conv2D", ("pad",), (10, 10, 2)),
    Layer("e", "Conv2D", ("pad",), (10, 10, 2)),
    Layer("join", "Concatenate", ("d", "e"), (10, 10, 4)),
    Layer("pool", "GlobalAveragePooling2D", ("join",), (4,)),
    Layer("logits", "Dense", ("pool",), (3,)),
    Layer("probabilities", "Softmax", ("logits",), (3,)),
]


def test_each_operator_is_rounded_where_the_engine_rounds_it() -> None:
    plan = plan_rounding(RESIDUAL, "tflite")
    rounded = {name for name, rounding in plan.items() if rounding.output}
    assert rounded == {"a_relu", "b", "add", "c", "join", "pool", "logits"}
    assert plan["a"] == Rounding("kernel", output=False)  # one operator with its ReLU
    assert plan["c"] == Rounding("depthwise_kernel", output=True)
    assert plan["d"].output is False  # takes the scale of the concatenation
    assert "pad" not in plan
    assert "normalisation" not in plan


def test_tensorrt_rounds_inputs_and_of_an_addition_the_skip_alone() -> None:
    plan = plan_rounding(RESIDUAL, "tensorrt")
    rounded = {name for name, rounding in plan.items() if rounding.output}
    assert "logits" not in rounded
    assert {"a_relu", "add", "pool"} <= rounded
    assert "b" not in rounded
    assert plan["normalisation"] == Rounding(None, output=False, pixels=True)


@pytest.mark.parametrize(
    ("activation", "joined"),
    [
        (Layer("a_relu", "ReLU", ("a",), (8, 8, 4)), True),
        (Layer("a_relu", "Activation", ("a",), (8, 8, 4), activation="relu"), True),
        (Layer("a_relu", "Activation", ("a",), (8, 8, 4), activation="linear"), True),
        (Layer("a_relu", "ReLU", ("a",), (8, 8, 4), unusual=True), False),
        (Layer("a_relu", "LeakyReLU", ("a",), (8, 8, 4)), False),
        (Layer("a_relu", "Activation", ("a",), (8, 8, 4), activation="swish"), False),
    ],
    ids=lambda value: f"{value.kind} {value.activation}" if isinstance(value, Layer) else None,
)
def test_tflite_joins_a_relu_alone_and_tensorrt_every_activation(
    activation: Layer, joined: bool
) -> None:
    layers = [*RESIDUAL[:3], activation, *RESIDUAL[4:]]
    assert plan_rounding(layers, "tflite")["a"].output is not joined
    assert plan_rounding(layers, "tensorrt")["a"].output is False


def test_tensorrt_rounds_what_a_layer_with_weights_reads_and_nothing_for_a_gate() -> None:
    gated = [
        *RESIDUAL[:4],
        Layer("gate", "Conv2D", ("a_relu",), (8, 8, 4), activation="sigmoid"),
        Layer("scaled", "Multiply", ("a_relu", "gate"), (8, 8, 4)),
        Layer("pool", "GlobalAveragePooling2D", ("scaled",), (4,)),
        *RESIDUAL[-2:],
    ]
    rounded = {name for name, r in plan_rounding(gated, "tensorrt").items() if r.output}
    assert rounded == {"a_relu", "scaled", "pool"}


def test_a_relu_with_a_slope_or_another_bound_is_unusual() -> None:
    from lesiontk.system.frameworks import import_keras

    keras = import_keras()
    image = x = keras.Input((8, 8, 3))
    for options in ({}, {"max_value": 6}, {"max_value": 1}, {"negative_slope": 0.1}):
        x = keras.layers.ReLU(**options)(x)
    found = [layer.unusual for layer in read_layers(keras.Model(image, x))]
    assert found == [False, False, False, True, True]


def test_what_only_moves_values_keeps_their_scale() -> None:
    assert find_moves(RESIDUAL, {"a_relu", "add", "pool"}) == {"pad": "add"}
    flat = [*RESIDUAL[:4], Layer("flatten", "Flatten", ("a_relu",), (256,))]
    twice = [*flat, Layer("drop", "Dropout", ("flatten",), (256,))]
    assert find_moves(twice, {"a_relu"}) == {"flatten": "a_relu", "drop": "a_relu"}


def test_the_weights_take_at_most_255_values_and_the_float_ones_stay() -> None:
    model = fold_batchnorm(build_model())
    layers = read_layers(model)
    x = pictures(model)
    aware = quantize_aware(model, layers, measure(model, x), "tflite")
    conv = aware.get_layer("conv")
    np.testing.assert_array_equal(
        get_inner_weights(conv)[0], model.get_layer("conv").get_weights()[0]
    )
    np.asarray(aware(x, training=False))
    ((variable, quantizer, _),) = conv._weight_vars
    rounded = np.asarray(quantizer(variable, False, weights={}))
    steps = np.abs(variable.numpy()).max(axis=(0, 1, 2)) / 127
    whole = rounded / steps
    np.testing.assert_allclose(whole, np.round(whole), atol=1e-3)
    assert np.abs(whole).max() <= 127.001


def test_it_answers_nearly_as_the_float_model_and_comes_off_again() -> None:
    for seed in (0, 3, 4, 9):
        model = fold_batchnorm(build_random_model(seed))
        layers = read_layers(model)
        if any(layer.kind == "SeparableConv2D" for layer in layers):
            continue
        x = pictures(model)
        for scheme in ("tflite", "tensorrt"):
            aware = quantize_aware(model, layers, measure(model, x), scheme)  # type: ignore[arg-type]
            expected, received = np.asarray(model(x)), np.asarray(aware(x, training=False))
            assert 0 < np.abs(expected - received).max() < 0.1
            before = model.get_weights()
            ranges = strip_quantization(aware, model, layers)
            for a, b in zip(before, model.get_weights(), strict=True):
                np.testing.assert_array_equal(a, b)
            plan = plan_rounding(layers, scheme)  # type: ignore[arg-type]
            assert set(ranges) == {name for name, r in plan.items() if r.output}


def test_ranges_follow_the_values_while_training() -> None:
    model = fold_batchnorm(build_model())
    layers = read_layers(model)
    x = pictures(model)
    start = measure(model, x)
    aware = quantize_aware(model, layers, start, "tflite")
    aware(3 * x, training=True)
    ranges = strip_quantization(aware, model, layers)
    assert ranges["relu"][1] > start["relu"][1]


def test_tensorrt_ranges_have_zero_point_0_before_and_after_training() -> None:
    model = fold_batchnorm(build_model())
    layers = read_layers(model)
    x = pictures(model)
    aware = quantize_aware(model, layers, measure(model, x), "tensorrt")
    for calls in (0, 20):
        for _ in range(calls):
            aware(3 * x, training=True)
        ranges = strip_quantization(aware, model, layers)
        rounded = outputs_of(aware, list(ranges), x)
        for name, ends in ranges.items():
            scale = symmetric_scale(*ends)  # the engine's
            whole = rounded[name] / scale
            np.testing.assert_allclose(whole, np.round(whole), atol=1e-3)
            assert len(np.unique(np.round(whole))) > 5
            np.testing.assert_allclose(ends, (-128 * scale, 127 * scale), rtol=1e-5)


@pytest.mark.parametrize(
    ("scale", "offset"), [(1.0, [-123.68, -116.779, -103.939]), (1 / 128, [-1.0] * 3)]
)
def test_tensorrt_rounds_pixels_at_the_scale_of_all_bytes(
    scale: float, offset: list[float]
) -> None:
    from lesiontk.system.frameworks import import_keras

    keras = import_keras()
    image = keras.Input((16, 16, 3), name="image")
    x = keras.layers.Rescaling(scale, offset, name="normalisation")(image)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(keras.layers.Conv2D(4, 3)(x))
    model = keras.Model(image, keras.layers.Dense(2, name="logits")(x))
    every = np.repeat(np.arange(256, dtype=np.float32), 3).reshape(1, 16, 16, 3)
    layers = read_layers(model)
    aware = quantize_aware(model, layers, measure(model, every), "tensorrt")
    aware(every[:, :8, :8].repeat(2, axis=1).repeat(2, axis=2), training=True)  # darker ones
    received = outputs_of(aware, ["normalisation", "pool"], every)["normalisation"]
    exact = every * np.float32(scale) + np.array(offset, np.float32)
    step = symmetric_scale(exact.min(), exact.max())
    np.testing.assert_allclose(received, np.round(exact / step) * step, atol=step * 1e-2)
    if scale < 1:
        np.testing.assert_allclose(received, exact, atol=1e-6)  # nothing is lost in 256 steps
    assert "normalisation" not in strip_quantization(aware, model, layers)


def test_two_kernels_in_one_layer_are_refused() -> None:
    layers = [RESIDUAL[0], Layer("both", "SeparableConv2D", ("image",), (8, 8, 4))]
    with pytest.raises(DataError, match=r"'both' \(SeparableConv2D\) has two kernels"):
        plan_rounding(layers, "tflite")
