"""TensorRT for RTX itself, without a GPU: what its parser takes and refuses, what it builds."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from lesiontk.backends.onnx.signals import add_signal_outputs
from lesiontk.backends.tensorrt import cuda_bindings, on_device
from lesiontk.backends.tensorrt.build import BuildSettings, build_engine
from lesiontk.backends.tensorrt.check import check_model, parse_model, require_model
from lesiontk.backends.tensorrt.installation import explain_no_gpu, find_installation
from lesiontk.backends.tensorrt.plan_runner import Runner
from lesiontk.errors import DataError, MissingRequirementError, UsageError
from tests.backends.tensorrt.damaged_graphs import make_asymmetric, quantize_bias
from tests.backends.tensorrt.graphs import find_node

trt = pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
PRECISIONS = ("float32", "float16", "int8", "mixed")
AMPERE = BuildSettings(capabilities=("SM86",))


@pytest.fixture
def model(precision: str, request: pytest.FixtureRequest) -> onnx.ModelProto:
    found = request.getfixturevalue(precision)
    assert isinstance(found, onnx.ModelProto)
    return found


@pytest.fixture
def file(model: onnx.ModelProto, tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    return path


@contextmanager
def parsed(model: onnx.ModelProto) -> Iterator[Any]:
    """The network that the parser makes of a graph."""
    logger = on_device.make_logger(trt)
    builder = on_device.make_builder(trt, logger)
    network, parser = on_device.parse_graph(trt, builder, logger, model.SerializeToString())
    yield network
    del parser


def layer_types(model: onnx.ModelProto) -> dict[str, set[str]]:
    """Kind of layer -> types of what the network's layers of that kind give."""
    found: dict[str, set[str]] = {}
    with parsed(model) as network:
        for index in range(network.num_layers):
            layer = network.get_layer(index)
            kinds = found.setdefault(layer.type.name, set())
            kinds.update(layer.get_output(i).dtype.name for i in range(layer.num_outputs))
    return found


# --------------------------------------------------------------------- verdicts


@pytest.mark.parametrize("precision", PRECISIONS)
def test_its_parser_takes_the_back_ends_graphs(file: Path) -> None:
    report = require_model(file)
    assert report.findings == ()
    assert (report.parser, report.no_parser) == (f"tensorrt_rtx {trt.__version__}", "")


def name_unknown_operator(model: onnx.ModelProto) -> None:
    find_node(model, "second_relu").op_type = "Fancy"


REFUSED: dict[str, tuple[Callable[[onnx.ModelProto], None], str, str, str]] = {
    "asymmetric": (
        make_asymmetric,
        "second/q",
        "QuantizeLinear",
        "Non-zero zero point is not supported",
    ),
    "quantized bias": (quantize_bias, "bias_dq", "DequantizeLinear", "type Int32"),
    "unknown operator": (name_unknown_operator, "second_relu", "Fancy", "Plugin not found"),
}


@pytest.mark.parametrize(("damage", "node", "operator", "reason"), REFUSED.values(), ids=REFUSED)
def test_its_parser_names_node_operator_and_reason(
    damage: Callable[[onnx.ModelProto], None],
    node: str,
    operator: str,
    reason: str,
    int8: onnx.ModelProto,
) -> None:
    damage(int8)
    found = parse_model(trt, int8.SerializeToString())
    assert [(f.node, f.operator) for f in found] == [(node, operator)]
    assert reason in found[0].reason
    assert "catchCudaError" not in found[0].reason  # no driver is needed to parse
    assert found[0].check == f"tensorrt_rtx {trt.__version__}"


def test_a_refused_graph_is_an_error_with_each_reason(
    int8: onnx.ModelProto, tmp_path: Path
) -> None:
    make_asymmetric(int8)
    onnx.save(int8, tmp_path / "asymmetric.onnx")
    report = check_model(tmp_path / "asymmetric.onnx")
    assert {finding.check for finding in report.findings} > {"lint"}  # the rules and the parser
    with pytest.raises(DataError, match=r"asymmetric\.onnx as intended: .*zero point is -128"):
        require_model(tmp_path / "asymmetric.onnx")
    with pytest.raises(DataError, match=r"asymmetric\.onnx: .*Non-zero zero point"):
        build_engine(tmp_path / "asymmetric.onnx", "int8", AMPERE)


def test_what_is_no_onnx_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("this is no model")
    with pytest.raises(DataError, match=r"text\.onnx is not a valid ONNX model"):
        check_model(tmp_path / "text.onnx")


# ------------------------------------------------------------------------ types


def test_the_network_has_the_types_of_the_graph(
    float32: onnx.ModelProto,
    float16: onnx.ModelProto,
    int8: onnx.ModelProto,
    mixed: onnx.ModelProto,
) -> None:
    single, half, integer, both = map(layer_types, (float32, float16, int8, mixed))
    assert single["CONVOLUTION"] == {"FLOAT"}
    assert half["CONVOLUTION"] == {"HALF"}
    assert half["SOFTMAX"] == {"FLOAT"}
    assert integer["QUANTIZE"] == {"INT8"}
    assert integer["DEQUANTIZE"] == {"FLOAT"}
    assert both["QUANTIZE"] == {"INT8"}
    assert both["CONVOLUTION"] == {"FLOAT", "HALF"}
    assert not {"QUANTIZE", "DEQUANTIZE"} & (single.keys() | half.keys())


@pytest.mark.parametrize("precision", PRECISIONS)
def test_bytes_go_in_and_floats_come_out_for_any_number_of_images(
    model: onnx.ModelProto,
) -> None:
    with parsed(model) as network:
        image, probabilities = network.get_input(0), network.get_output(0)
        assert (image.name, image.dtype.name, tuple(image.shape)) == (
            "image", "UINT8", (-1, 8, 8, 3),
        )  # fmt: skip
        assert (probabilities.name, probabilities.dtype.name) == ("probabilities", "FLOAT")
        assert tuple(probabilities.shape) == (-1, 3)


# ----------------------------------------------------------------------- builds


@pytest.mark.parametrize("precision", PRECISIONS)
def test_features_and_logits_are_built_as_further_outputs_in_float32(
    model: onnx.ModelProto, file: Path, precision: str
) -> None:
    plain = len(build_engine(file, precision, AMPERE).content)
    add_signal_outputs(model)
    with parsed(model) as network:
        outputs = [network.get_output(index) for index in range(network.num_outputs)]
        assert [(output.name, output.dtype.name) for output in outputs] == [
            ("probabilities", "FLOAT"),
            ("features", "FLOAT"),
            ("logits", "FLOAT"),
        ]
    onnx.save(model, file)
    assert require_model(file).findings == ()
    assert len(build_engine(file, precision, AMPERE).content) != plain


@pytest.mark.parametrize("precision", PRECISIONS)
def test_an_engine_is_built_without_a_gpu_and_again_to_the_same_bytes(
    precision: str, file: Path
) -> None:
    first, again = (build_engine(file, precision, AMPERE) for _ in range(2))
    assert first.content == again.content
    assert first.describe().bytes > 1000
    assert first.builder == f"tensorrt_rtx {trt.__version__}"


@pytest.mark.parametrize("precision", ["int8"])
def test_several_gpus_and_a_range_of_batches_can_be_asked_for(file: Path) -> None:
    settings = BuildSettings(batches=(1, 4, 16), capabilities=("SM86", "SM89"))
    plan = build_engine(file, "int8", settings)
    assert plan.describe().batches == (1, 4, 16)
    assert len(plan.content) > len(build_engine(file, "int8", AMPERE).content)


@pytest.mark.parametrize("precision", ["int8"])
def test_a_gpu_that_it_does_not_know_is_refused_by_name(file: Path) -> None:
    with pytest.raises(DataError, match=r"cannot build for SM87; known are .*SM86"):
        build_engine(file, "int8", BuildSettings(capabilities=("SM87",)))


@pytest.mark.parametrize("precision", ["int8"])
def test_a_timing_cache_is_refused_for_it_would_do_nothing(file: Path, tmp_path: Path) -> None:
    settings = BuildSettings(timing_cache=tmp_path / "timing.cache", capabilities=("SM86",))
    with pytest.raises(DataError, match="does not support a timing cache; expected none"):
        build_engine(file, "int8", settings)


@pytest.mark.parametrize("batches", [(0, 1, 1), (2, 1, 4), (1, 4, 2)])
def test_a_bad_profile_is_refused_when_it_is_made(batches: tuple[int, int, int]) -> None:
    with pytest.raises(UsageError, match="expected 1 <= minimum <= optimum <= maximum"):
        BuildSettings(batches=batches)


def test_a_bad_profile_is_refused_by_tensorrt_too(float32: onnx.ModelProto) -> None:
    content = float32.SerializeToString()
    with pytest.raises(on_device.BuildError, match=r"profile \[2, 1, 4\] of image is rejected"):
        on_device.build_from_onnx(trt, content, "float32", batches=(2, 1, 4))


def test_a_workspace_that_is_none_is_refused() -> None:
    with pytest.raises(UsageError, match="workspace is 0 bytes"):
        BuildSettings(workspace=0)


@pytest.mark.parametrize("precision", ["float32"])
def test_an_unknown_precision_is_refused(file: Path) -> None:
    with pytest.raises(UsageError, match="precision is 'int4'; expected one of float32"):
        build_engine(file, "int4")


# ------------------------------------------------------------------- without GPU


def test_it_is_found_without_importing_it() -> None:
    installed = find_installation()
    assert installed is not None
    assert installed.module in ("tensorrt", "tensorrt_rtx")


@pytest.mark.skipif(not explain_no_gpu(), reason="there is a GPU that TensorRT can use")
@pytest.mark.parametrize("precision", ["int8"])
def test_an_engine_does_not_run_without_a_gpu_and_says_why(file: Path) -> None:
    with pytest.raises(
        on_device.MissingRequirementError, match=r"no GPU can be used \(pycuda: .*cuda-python: "
    ):
        cuda_bindings.open_cuda()
    plan = build_engine(file, "int8", AMPERE)
    with pytest.raises((on_device.MissingRequirementError, on_device.BuildError)):
        Runner(trt, None, plan.content)


@pytest.mark.gpu
@pytest.mark.skipif(bool(explain_no_gpu()), reason=f"no GPU: {explain_no_gpu()}")
@pytest.mark.parametrize("precision", PRECISIONS)
def test_on_a_gpu_it_answers_as_the_graph(
    precision: str, file: Path, model: onnx.ModelProto
) -> None:
    from tests.backends.tensorrt.graphs import pictures, run_model

    plan = build_engine(file, precision, BuildSettings(batches=(1, 1, 4)))
    runner = Runner(on_device.import_tensorrt(), cuda_bindings.open_cuda(), plan.content)
    try:
        received = runner.predict(pictures(6))
        samples = runner.time_images(pictures(2), 20, 2)
    finally:
        runner.close()
    np.testing.assert_allclose(received, run_model(model, pictures(6)), atol=0.01)
    assert len(samples) == 20


def test_without_any_tensorrt_the_way_to_one_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    from lesiontk.backends.tensorrt import installation

    monkeypatch.setitem(sys.modules, "tensorrt", None)
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    with pytest.raises(MissingRequirementError, match=r"pip install lesiontk\[tensorrt-rtx\]"):
        installation.import_tensorrt()
