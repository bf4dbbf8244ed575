"""Quantization-aware training rounds the very tensors that an int8 engine rounds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import pytest

from lesiontk.backends import BACKENDS
from lesiontk.backends.keras.backend import layer_values
from lesiontk.backends.learned_ranges import match_tensors
from lesiontk.backends.tensorrt.graph import prepare_graph
from lesiontk.backends.tensorrt.quantize import find_skips
from lesiontk.compress.activation_splitting import split_activations
from lesiontk.compress.batchnorm_folding import fold_batchnorm
from lesiontk.compress.keras_layers import read_layers
from lesiontk.compress.quantization_aware import Scheme, find_moves, plan_rounding
from lesiontk.system.frameworks import import_keras
from tests.conformance.fitted_models import SPEC, PlainChain, draw_pictures

PICTURES = draw_pictures(8, 32, 7, seed=1)[0]


def list_rounded(model: Any, scheme: Scheme) -> list[str]:
    plan = plan_rounding(read_layers(model), scheme)
    return [name for name, rounding in plan.items() if rounding.output]


def end(x: Any, image: Any) -> Any:
    layers = import_keras().layers
    x = layers.Dense(7, name="logits")(layers.GlobalAveragePooling2D(name="pool")(x))
    return import_keras().Model(image, layers.Softmax(name="probabilities")(x))


def begin() -> tuple[Any, Any]:
    keras = import_keras()
    keras.utils.set_random_seed(1)
    image = keras.Input((32, 32, 3), name="image")
    x = keras.layers.Rescaling(1 / 128, -1.0, name="normalisation")(image)
    return image, keras.layers.Conv2D(4, 3, 4, activation="relu", name="stem")(x)


def test_tflite_rounds_before_every_activation_but_relu(tmp_path: Path) -> None:
    layers = import_keras().layers
    image, x = begin()

    def conv(x: Any, name: str, activation: Any = None) -> Any:
        return layers.Conv2D(4, 3, padding="same", name=name, activation=activation)(x)

    x = layers.LeakyReLU(name="leaky")(conv(x, "before_leaky"))
    x = layers.ELU(name="elu")(conv(x, "before_elu"))
    x = layers.Activation("tanh", name="tanh")(conv(x, "before_tanh"))
    x = layers.ReLU(6.0, name="relu6")(layers.Add(name="add")([x, conv(x, "added")]))
    x = layers.Concatenate(name="join")([conv(x, "left"), conv(x, "right")])
    x = layers.Activation("relu", name="relu")(conv(layers.ReLU(name="joined")(x), "before_relu"))
    model = split_activations(end(conv(x, "gate", "sigmoid"), image))
    rounded = list_rounded(model, "tflite")
    assert {"before_leaky", "before_elu", "before_tanh", "gate", "join"} <= {*rounded}
    assert not {"add", "before_relu", "left", "right"} & {*rounded}

    engines, backend = PlainChain(model, SPEC, tmp_path, PICTURES), BACKENDS.get("tflite")()
    quantized = backend.list_quantized_tensors(engines.convert("tflite:int8"))
    tensors = backend.read_tensors(engines.convert("tflite:float32"))(PICTURES[:1])
    moves = find_moves(read_layers(model), rounded)
    values = layer_values(engines.files["model"], [*rounded, *moves], PICTURES[:1])
    matched = match_tensors(values, tensors, moves)
    scales: dict[str, set[float]] = {}  # the first two are the image's
    for entry in quantized[2:]:
        name = entry.tensor.removesuffix("_quantized")  # behind what stays in float
        scales.setdefault(matched.get(name, name), set()).add(entry.scale)
    others = set(scales) - {*rounded, *moves}
    assert {*rounded} <= set(scales)
    assert len(others) == 2
    assert all(scales[name] == scales["join"] for name in others)  # left and right


@pytest.mark.parametrize("target", ["tflite", "onnx"])
def test_layers_of_imported_networks_are_rounded_where_the_engine_rounds(
    target: str, tmp_path: Path
) -> None:
    """Hard swish, both hard sigmoids, PReLU, Rescaling, groups, a Dropout before a ReLU."""
    layers = import_keras().layers
    image, x = begin()

    def conv(x: Any, name: str, **options: Any) -> Any:
        return layers.Conv2D(4, 3, padding="same", name=name, **options)(x)

    def ramp(x: Any, name: str, scale: float) -> Any:
        x = layers.Rescaling(scale, 3.0, name=f"{name}_shift")(x)
        return layers.Rescaling(1 / 6, name=name)(layers.ReLU(6.0, name=f"{name}_clip")(x))

    x = conv(x, "before_swish")
    x = layers.Multiply(name="swish")([x, ramp(x, "gate", 1.0)])
    x = ramp(conv(x, "before_hard"), "hard", 1.2)
    x = layers.PReLU("random_uniform", shared_axes=[1, 2], name="prelu")(conv(x, "before_prelu"))
    x = layers.Rescaling(0.5, 0.1, name="affine")(x)
    x = layers.ReLU(name="relu")(layers.Dropout(0.5)(conv(x, "grouped", groups=2)))
    model = split_activations(fold_batchnorm(end(x, image)))
    rounded = list_rounded(model, "tflite")
    assert {"before_swish", "swish", "hard_clip", "affine_scale", "affine"} <= {*rounded}
    assert not {"gate", "gate_clip", "gate_shift", "before_hard", "hard"} & {*rounded}
    assert "grouped" not in rounded

    engines, backend = PlainChain(model, SPEC, tmp_path, PICTURES), BACKENDS.get(target)()
    quantized = backend.list_quantized_tensors(engines.convert(f"{target}:int8"))
    tensors = backend.read_tensors(engines.convert(f"{target}:float32"))(PICTURES[:1])
    moves = find_moves(read_layers(model), rounded)
    values = layer_values(engines.files["model"], [*rounded, *moves], PICTURES[:1])
    matched = match_tensors(values, tensors, moves)
    found = {matched.get(entry.tensor.removesuffix("_quantized")) for entry in quantized[1:]}
    assert {*rounded} <= found


def test_tensorrt_rounds_the_skip_of_an_addition_whatever_the_layers_are_called(
    tmp_path: Path,
) -> None:
    layers = import_keras().layers
    image, x = begin()
    for skip, fused in (("conv2d_9", "conv2d_10"), ("conv2d_12", "conv2d_11")):
        parts = [layers.Conv2D(4, 1, name=name)(x) for name in (skip, fused)]
        x = layers.ReLU()(layers.Add()(parts))
    model = end(x, image)
    assert {"conv2d_9", "conv2d_12"} <= {*(rounded := list_rounded(model, "tensorrt"))}
    assert not {"conv2d_10", "conv2d_11"} & {*rounded}

    graph = prepare_graph(
        onnx.load(PlainChain(model, SPEC, tmp_path, PICTURES).convert("onnx:float32"))
    ).graph
    makers = {node.output[0]: node for node in graph.node}
    skips = [makers[sum_].input[index] for sum_, index in find_skips(graph).items()]
    assert ["conv2d_9/" in skips[0], "conv2d_12/" in skips[1]] == [True, True]
