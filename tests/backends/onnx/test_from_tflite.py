"""What tf2onnx leaves as it was is no ONNX operator."""

from __future__ import annotations

import pytest
from onnx import helper

from lesiontk.backends.onnx.from_tflite import refuse_unknown
from lesiontk.errors import DataError


@pytest.mark.parametrize(("operator", "known"), [("Relu", True), ("TFL_GELU", False)])
def test_an_operator_of_tflite_is_refused_by_its_name(operator: str, known: bool) -> None:
    node = helper.make_node(operator, ["image"], ["logits"])
    model = helper.make_model(helper.make_graph([node], "net", [], []))
    if known:
        refuse_unknown(model, "net.tflite")
    else:
        with pytest.raises(DataError, match=r"net\.tflite has TFL_GELU, .*a target of TFLite"):
            refuse_unknown(model, "net.tflite")
