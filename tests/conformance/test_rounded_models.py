"""Every architecture's int8 engines say what the model says that is trained with their rounding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lesiontk.backends import BACKENDS, open_engine
from lesiontk.backends.backend import QuantizationPlan
from lesiontk.backends.keras.backend import layer_values, load_model, read_spec
from lesiontk.backends.learned_ranges import apply_learned, match_tensors
from lesiontk.calibration.ranges import Ranges, measure_ranges
from lesiontk.compress.batchnorm_folding import fold_batchnorm
from lesiontk.compress.keras_layers import read_layers
from lesiontk.compress.quantization_aware import (
    Scheme,
    find_moves,
    quantize_aware,
    strip_quantization,
)
from lesiontk.data.synthetic.dataset import render_view
from lesiontk.models import ARCHITECTURES
from lesiontk.records import EngineSpec
from lesiontk.stages.qat import measure_initial_ranges
from lesiontk.system.frameworks import import_tensorflow
from tests.conformance.cases import TOO_DEEP, each_architecture
from tests.conformance.fitted_models import SPEC, EngineChain, build_fitted_model, draw_pictures

ENGINES = Path(__file__).parents[2] / "benchmarks" / "engines"
TRAINED = {"efficientnet_lite0": ENGINES / "efficientnet_lite0_7class" / "keras_float32.keras"}
"""Random features of so many depthwise layers blow any difference up; these were trained."""
PICTURES = 140
TARGETS: dict[Scheme, tuple[str, ...]] = {
    "tflite": ("tflite:int8", "onnx:int8"),
    "tensorrt": ("tensorrt:int8",),
}
LARGE = "resnet152v2"
"""Its way to ONNX takes a while: all that is made of that is in one case."""


def find_model(name: str) -> tuple[Any, EngineSpec, NDArray[np.uint8]]:
    """Return a model, its description, and pictures."""
    if name not in TRAINED:
        model = build_fitted_model(ARCHITECTURES.get(name), image_size=32, classes=7)
        return model, SPEC, draw_pictures(PICTURES, 32, 7, seed=1)[0]
    spec = read_spec(TRAINED[name])
    size, labels = spec.preprocessing.image_size, spec.labels
    views = [render_view(labels[n % len(labels)], n, 0, size) for n in range(PICTURES)]
    return load_model(TRAINED[name]), spec, np.stack(views)


def find_sure(outputs: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return the rows, three of four, where the first class leads most over the second.

    The pictures are not what these models were trained on: of many they waver between two classes,
    and the last bit of any sum decides.
    """
    second, first = np.sort(outputs)[:, -2:].T
    return np.argsort(second - first, kind="stable")[: 3 * len(outputs) // 4]


def train_rounded(
    model: Any, scheme: Scheme, pictures: NDArray[np.uint8], folder: Path
) -> tuple[NDArray[np.float32], Ranges]:
    """Give `model` the weights of a step with rounding; return its answers then, and its ranges.

    Ranges begin too narrow, so that an engine which takes measured ones is found out.
    """
    tf = import_tensorflow()
    layers = read_layers(model)
    begun = measure_initial_ranges(model, layers, pictures, scheme, folder)
    narrow = {name: (0.9 * low, 0.9 * high) for name, (low, high) in begun.items()}
    aware = quantize_aware(model, layers, narrow, scheme)
    images = pictures.astype(np.float32)
    with tf.GradientTape() as tape:
        loss = -tf.reduce_mean(tf.math.log(aware(images[:8], training=True)[:, 0] + 1e-3))
    gradients = tape.gradient(loss, aware.trainable_variables)
    for variable, gradient in zip(aware.trainable_variables, gradients, strict=True):
        assert gradient is not None, variable.name
        variable.assign_sub(1e-5 * gradient)
    said = np.concatenate(
        [aware(images[i : i + 35], training=False) for i in range(0, PICTURES, 35)]
    )
    return said, strip_quantization(aware, model, layers)


class LearnedEngines(EngineChain):
    """Engines with the ranges that the model has learned in the place of measured ones.

    What the stages for ranges and conversion do, without a store.
    """

    def __init__(
        self, model: Any, spec: EngineSpec, learned: Ranges, images: NDArray[np.uint8], folder: Path
    ) -> None:
        super().__init__(model, spec, folder)
        self.images = images
        self.moves = find_moves(read_layers(model), learned)
        self.learned = learned | {name: learned[o] for name, o in self.moves.items()}

    def plan_for(self, origin: str) -> QuantizationPlan:
        read = BACKENDS.get(origin.partition(":")[0])().read_tensors(self.files[origin])
        first = self.images[:1]
        values = layer_values(self.files["model"], list(self.learned), first)
        measured = measure_ranges(
            read, (image[np.newaxis] for image in self.images[:28]), "min_max"
        )
        ranges = apply_learned(
            measured, self.learned, match_tensors(values, read(first), self.moves)
        )
        ends = {name: (tensor.low, tensor.high) for name, tensor in ranges.items()}
        return QuantizationPlan(self.images, "min_max", ranges=ends, correct_bias=False)


@pytest.mark.parametrize("scheme", TARGETS)
@pytest.mark.parametrize("name", each_architecture(but=TOO_DEEP, engines=True))
def test_the_engine_says_what_the_rounded_model_says(
    name: str, scheme: Scheme, tmp_path: Path
) -> None:
    model, spec, pictures = find_model(name)
    folded = fold_batchnorm(model)
    said, learned = train_rounded(folded, scheme, pictures, tmp_path)
    engines = LearnedEngines(folded, spec, learned, pictures, tmp_path)
    for target in TARGETS[scheme]:
        if (name, target) != (LARGE, "onnx:int8"):
            check_answers(engines.convert(target), said, pictures)
            check_structure(engines, target)
    if (name, scheme) == (LARGE, "tensorrt"):
        check_structure(engines, "onnx:int8")


def check_answers(path: Path, said: NDArray[np.float32], pictures: NDArray[np.uint8]) -> None:
    sure = find_sure(said)
    with open_engine(path) as engine:
        right, wrong = engine.predict(pictures), engine.predict(pictures[:35, ..., ::-1])
    same = right.argmax(axis=1) == said.argmax(axis=1)
    assert np.mean(same[sure]) >= 0.99
    assert np.mean(wrong.argmax(axis=1) == said[:35].argmax(axis=1)) < 0.99


def check_structure(engines: EngineChain, target: str) -> None:
    """Weights are int8, and all but Softmax computes in int8; TensorRT pads and pools as it may."""
    path, backend = engines.convert(target), BACKENDS.get(target.partition(":")[0])()
    assert backend.inspect(path).int8_weight_share >= 0.99
    assert backend.list_unexplained(path, "int8") == ()
    kinds = [op.partition(" ")[0].lower() for op in engines.records[target].float_operators]
    assert kinds.count("softmax") == 1
    others = set(kinds) - {"softmax"}
    assert others <= ({"pad", "maxpool"} if target == "tensorrt:int8" else set())
