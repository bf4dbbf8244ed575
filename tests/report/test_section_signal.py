"""The report names the layers that lost most, and says how each engine was quantized."""

from __future__ import annotations

from dataclasses import replace

from lesiontk.backends.backend import Quantization
from lesiontk.report.wording import describe_quantization, group_float_operators
from tests.report.page import read
from tests.report.sample_report import make_report_data

SIGNAL = "Signal-to-noise ratio of the layers"


def test_the_worst_layers_are_named() -> None:
    table = read(make_report_data()).tables[SIGNAL]
    assert [row[0] for row in table[1:]] == ["tflite:int8", "onnx:int8"]
    assert table[1][1] == "12"
    assert table[1][3].startswith("logits/BiasAdd: 20.0 dB; block2/Relu: 30.1 dB")
    assert table[1][4] == "16"


def test_without_a_ratio_there_is_no_table() -> None:
    engines = make_report_data().engines
    silent = {target: replace(facts, signal=None) for target, facts in engines.items()}
    assert SIGNAL not in read(make_report_data(engines=silent)).tables


def test_seven_bit_weights_are_said() -> None:
    page = read(make_report_data())
    rows = {row[0]: row for row in page.tables["Structure of the engines"]}
    assert rows["onnx:int8"][3] == (
        "7-bit weights (reduced range, for CPUs without VNNI), 8-bit activations, 3 biases "
        "corrected"
    )
    assert rows["onnx:float32"][3] == "–"


def test_quantization_in_words() -> None:
    assert describe_quantization(Quantization()) == ""
    assert describe_quantization(Quantization(weight_bits=8)) == "8-bit weights"
    facts = Quantization(weight_bits=8, activation_bits=16, corrected_biases=0)
    assert describe_quantization(facts) == "8-bit weights, 16-bit activations"
    facts = Quantization(weight_bits=8, otherwise_than_trained="trained for another rounding")
    assert describe_quantization(facts) == "8-bit weights, trained for another rounding"


def test_many_operators_of_one_type_become_one_entry() -> None:
    many = [f"DEPTHWISE_CONV_2D -> block{i}" for i in range(3)]
    (first, reason), second = group_float_operators(
        [*many, "SOFTMAX -> out"], "tflite:dynamic_int8"
    )
    assert first == "DEPTHWISE_CONV_2D (3)"
    assert reason.startswith("int8 in the file and converted to float32")
    assert second[0] == "SOFTMAX -> out"
    assert group_float_operators([], "tflite:int8") == ()
