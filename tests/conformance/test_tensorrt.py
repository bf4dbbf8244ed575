"""TensorRT for RTX itself takes and builds every architecture in every precision, without a GPU.

What an engine is built of is read from the parsed network: a plan can be inspected on a GPU only.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from lesiontk.backends import BACKENDS, open_engine
from lesiontk.backends.backend import ConversionRecord
from lesiontk.backends.tensorrt import on_device
from lesiontk.backends.tensorrt.backend import AHEAD_OF_TIME
from lesiontk.backends.tensorrt.build import BuildSettings, build_engine
from lesiontk.backends.tensorrt.check import VERSIONS
from tests.conformance.cases import TOO_DEEP, each_architecture
from tests.conformance.fitted_models import SPEC, FittedParent

trt = pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
PRECISIONS = tuple(BACKENDS.get("tensorrt").info.precisions)  # of mixed: none kept, as int8
QUICK = each_architecture(but=["resnet152v2"], engines=True)  # minutes to make, see below
WEIGHTED = ("CONVOLUTION", "MATRIX_MULTIPLY")


def count_types(content: bytes) -> dict[str, Counter[str]]:
    """Kind of layer -> how many of the network's layers give which type."""
    logger = on_device.make_logger(trt)
    builder = on_device.make_builder(trt, logger)
    network, parser = on_device.parse_graph(trt, builder, logger, content)
    found: dict[str, Counter[str]] = {}
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        for output in range(layer.num_outputs):
            kind = layer.get_output(output).dtype.name
            found.setdefault(layer.type.name, Counter())[kind] += 1
    assert network.get_input(0).dtype == trt.DataType.UINT8
    assert network.get_output(0).dtype == trt.DataType.FLOAT
    del parser
    return found


def check_examination(record: ConversionRecord, path: Path, precision: str) -> None:
    """The parser took the graph, and an engine was built that is built again to the same bytes."""
    assert record.examination["check"] == {
        "versions": list(VERSIONS),
        "parser": f"tensorrt_rtx {trt.__version__}",
        "no_parser": None,
        "groups": [],
        "findings": [],
    }
    again = build_engine(path, precision, BuildSettings(capabilities=(AHEAD_OF_TIME,)))
    assert record.examination["build"] == again.describe().to_document()
    assert record.examination["build"]["sha256"] == hashlib.sha256(again.content).hexdigest()


def check_types(path: Path, precision: str, half: int = 0) -> None:
    """Every layer with weights computes in the precision, `half` of them in float16 instead.

    Nothing else was quantized than asked.
    """
    types = count_types(path.read_bytes())
    weighted: Counter[str] = sum((types.get(kind, Counter()) for kind in WEIGHTED), Counter())
    graph = onnx.load(path).graph
    layers = sum(node.op_type in ("Conv", "Gemm") for node in graph.node)
    half = layers if precision == "float16" else half
    assert weighted == +Counter(HALF=half, FLOAT=layers - half)
    quantized = types.get("QUANTIZE", Counter())
    dequantized = types.get("DEQUANTIZE", Counter())
    if precision in ("int8", "mixed"):
        nodes = Counter(node.op_type for node in graph.node)
        assert quantized == {"INT8": nodes["QuantizeLinear"]}
        assert dequantized == {"FLOAT": nodes["DequantizeLinear"]}
        pairs = nodes["DequantizeLinear"] - nodes["QuantizeLinear"]  # weights have no Q
        assert pairs == layers - half
    else:
        assert not quantized
        assert not dequantized


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", QUICK)
def test_it_is_parsed_and_built_in_the_types_of_its_graph(
    name: str, precision: str, fitted_parent: Callable[[str], FittedParent]
) -> None:
    parent = fitted_parent(name)
    target = f"tensorrt:{precision}"
    path = parent.convert(target)
    check_examination(parent.records[target], path, precision)
    check_types(path, precision)


@pytest.mark.parametrize("name", QUICK)
def test_layers_that_are_kept_are_built_in_half_among_the_others(
    name: str, fitted_parent: Callable[[str], FittedParent], tmp_path: Path
) -> None:
    parent, backend = fitted_parent(name), BACKENDS.get("tensorrt")()
    source = parent.convert("onnx:float32")
    layers = backend.list_layers(source)
    kept = frozenset({layers[0], layers[1], layers[-1]})  # none of them a pool
    plan = replace(parent.plan, float_layers=kept)
    spec = replace(SPEC, backend="tensorrt", precision="mixed")
    record = backend.convert(source, "mixed", spec, plan, tmp_path)
    assert record.quantization.float16_layers == len(kept)
    check_examination(record, tmp_path / record.file, "mixed")
    check_types(tmp_path / record.file, "mixed", half=len(kept))


@pytest.mark.parametrize("precision", ["float16", "int8"])
@pytest.mark.parametrize("name", each_architecture(but=["resnet152v2", *TOO_DEEP], engines=True))
def test_its_emulated_engine_agrees_with_it(
    name: str, precision: str, fitted_parent: Callable[[str], FittedParent]
) -> None:
    parent = fitted_parent(name)
    target = f"tensorrt:{precision}"
    with open_engine(parent.convert(target)) as engine:
        right = parent.verify(target, engine.predict(parent.pictures))
        wrong = parent.verify(target, engine.predict(parent.pictures[..., ::-1]))
    assert right.passed, [str(check) for check in right.checks]
    assert not wrong.passed


@pytest.mark.slow
def test_resnet152v2_is_parsed_and_built_too(
    fitted_parent: Callable[[str], FittedParent],
) -> None:
    """One model for all precisions: its way to ONNX takes minutes."""
    parent = fitted_parent("resnet152v2")
    for precision in PRECISIONS:
        target = f"tensorrt:{precision}"
        path = parent.convert(target)
        check_examination(parent.records[target], path, precision)
        check_types(path, precision)
        with open_engine(path) as engine:
            answers = engine.predict(parent.pictures)
        assert np.mean(answers.argmax(axis=1) == parent.outputs.argmax(axis=1)) >= 0.9
