"""A model card describes a network, its training and its evaluation."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from lesiontk.backends.backend import Quantization
from lesiontk.backends.onnx.int8_kernels import EXACT
from lesiontk.models.architecture import InitialWeights
from lesiontk.report.result_table import operating_points_from_benchmark
from lesiontk.stages.distill import Distillation
from tests.loose_modules import load_benchmark
from tests.model_facts import make_facts, make_step
from tests.report.sample_report import TARGETS, make_engine, make_external, make_report_data

CARD = load_benchmark("model_card")
render = CARD.render_model_card


def test_a_model_card_has_the_threshold_and_the_external_check() -> None:
    data = make_report_data(targets=(*TARGETS, "tensorrt:int8"))
    model = make_facts()
    arguments: dict[str, Any] = {
        "recipe": {
            **data.recipe,
            "data": {"image_size": 64},
            "model": {"weights": "none"},
            "train": {"head_epochs": 0, "imbalance": ["none"]},
        },
        "model": model,
        "training_seconds": 60.0,
        "split": data.split,
        "calibration": data.calibration,
        "benchmark": data.benchmark,
        "engines": [replace(make_engine("tensorrt:int8"), file="tensorrt_int8.onnx")],
        "sizes": {"320x240": 9, "600x450": 1},
        "command": "lesiontk run sample",
    }
    card = render(
        **arguments, external=CARD.ExternalCheck("Images from elsewhere", make_external(data))
    )
    assert operating_points_from_benchmark(data.benchmark) in card
    assert "## External check\n\nImages from elsewhere: n = 160" in card
    assert "evaluated on one split of one collection and on Images from elsewhere." in card
    plain = render(**arguments)
    assert "External check" not in plain
    assert "evaluated on one split of one collection. " in plain
    assert "Austria" not in plain  # the sample is not HAM10000
    arguments["recipe"]["data"]["source"] = "ham10000"
    assert "HAM10000 comes from Austria" in render(**arguments)
    assert "Too large" not in card
    caution = "possibly including the test images"
    assert caution not in card
    foreign = {**arguments, "model": replace(model, may_have_seen_test=True)}
    assert caution in render(**foreign)
    large = render(**arguments, left_out=["onnx:int8"])
    assert "Too large to be published: onnx:int8." in large
    weights = InitialWeights("a.pth", "0123456789ab" + 52 * "f", "p", "3")
    pretrained = {
        "recipe": {**arguments["recipe"], "model": {"weights": "imagenet"}},
        "model": make_facts("train", weights),
    }
    assert "trained from pretrained weights (imagenet, p 3, SHA-256 0123456789ab)." in render(
        **{**arguments, **pretrained}
    )
    assert "It was made in" not in card
    assert "trained from random weights." in card
    assert "with the class frequencies of the collection" in card
    assert "- `tensorrt_int8.onnx`: agrees with its parent on 97.7% of 256 images, emulated" in card
    assert "(symmetric in `tensorrt_int8.onnx`)" in card
    assert (
        "onnx:float32: finds 19 of 22 images of melanoma by the highest probability (86.4 %, 95 % "
        "interval" in card
    )
    assert "tflite:int8: finds 15 of 22 images of melanoma" in card
    assert "22 images are too few to show that it finds more than it misses" in card
    assert EXACT not in card
    onnx = replace(make_engine("onnx:int8"), file="onnx_int8.onnx")
    for bits, expected in ((8, True), (7, False)):
        arguments["engines"] = [replace(onnx, quantization=Quantization(weight_bits=bits))]
        assert (f"`{EXACT}` to 1 for `onnx_int8.onnx`" in render(**arguments)) == expected
    assert "The images were of 2 sizes, most 320x240, pixels" in card
    distilled = Distillation("tflite_int8.tflite", 0.9)
    arguments["model"] = make_facts("distill", distilled, history=(make_step("train"),))
    assert (
        "It was made in 2 steps: train (trained from initial weights), then distill "
        "(distilled from tflite_int8.tflite). "
    ) in render(**arguments)
