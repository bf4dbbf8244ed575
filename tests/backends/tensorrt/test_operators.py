"""The table of operators, and what it says of graphs."""

from __future__ import annotations

import itertools

import onnx
import pytest

from lesiontk.backends.tensorrt.operators import check_operators, find_table, read_tables
from lesiontk.backends.tensorrt.targets import find_target, read_targets, write_trtexec
from lesiontk.errors import UsageError
from tests.backends.tensorrt.graphs import find_node


def test_there_is_a_table_for_each_version_that_jetsons_have() -> None:
    assert [table.version for table in read_tables()] == ["8.5", "8.6", "10.0", "10.15"]
    for table in read_tables():
        assert "onnx/onnx-tensorrt" in table.source
        assert {"Conv", "Gemm", "QuantizeLinear", "DequantizeLinear"} <= table.operators
        assert not {"QLinearConv", "ConvInteger", "DynamicQuantizeLinear"} & table.operators


def test_a_later_table_has_more() -> None:
    tables = read_tables()
    for older, newer in itertools.pairwise(tables):
        assert older.operators < newer.operators
        assert older.max_opset <= newer.max_opset


@pytest.mark.parametrize(
    ("version", "table"),
    [("8.5.2", "8.5"), ("8.6.2", "8.6"), ("9.1", "8.6"), ("10.3.0", "10.0"), ("11.0", "10.15")],
)
def test_a_version_is_judged_by_the_newest_table_below_it(version: str, table: str) -> None:
    assert find_table(version).version == table


@pytest.mark.parametrize("version", ["8", "ten", "8.x"])
def test_what_is_no_version_is_refused(version: str) -> None:
    with pytest.raises(UsageError, match="is not a version of TensorRT"):
        find_table(version)


def test_a_version_before_all_tables_is_refused() -> None:
    with pytest.raises(UsageError, match=r"no operator table for TensorRT 7\.1; expected 8\.5"):
        find_table("7.1")


def test_the_back_ends_own_graphs_pass_everywhere(
    float32: onnx.ModelProto, float16: onnx.ModelProto, int8: onnx.ModelProto
) -> None:
    for table in read_tables():
        for model in (float32, float16, int8):
            assert check_operators(model, table.version) == ()


def test_an_operator_that_came_later_is_named(float32: onnx.ModelProto) -> None:
    find_node(float32, "second_relu").op_type = "IsInf"
    (finding,) = check_operators(float32, "8.5.2")
    assert (finding.node, finding.operator) == ("second_relu", "IsInf")
    assert finding.reason == "TensorRT 8.5.2 does not import it"
    assert finding.check == "operators 8.5"
    assert check_operators(float32, "8.6.2") == ()


def test_a_later_opset_is_named(float32: onnx.ModelProto) -> None:
    float32.opset_import[0].version = 18
    (finding,) = check_operators(float32, "8.6")
    assert "opset 18; TensorRT 8.6 reads up to 17" in finding.reason
    assert check_operators(float32, "10.3") == ()


def test_an_operator_of_another_domain_is_named(float32: onnx.ModelProto) -> None:
    find_node(float32, "second_relu").domain = "com.microsoft"
    (finding,) = check_operators(float32, "10.15")
    assert "domain com.microsoft" in finding.reason


def test_every_jetson_has_versions_that_a_table_judges() -> None:
    assert set(read_targets()) == {
        "jetson-xavier-jetpack5",
        "jetson-orin-jetpack5",
        "jetson-orin-jetpack6",
        "jetson-orin-jetpack7",
    }
    for target in read_targets().values():
        assert target.tensorrt
        for version in target.tensorrt:
            find_table(version)


def test_an_unknown_jetson_is_refused_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="Did you mean 'jetson-orin-jetpack6'"):
        find_target("jetson-orin-jetpack-6")


@pytest.mark.parametrize(
    ("version", "precision", "flag"),
    [
        ("8.5.2", "int8", " --int8"),
        ("8.6.2", "float16", " --fp16"),
        ("8.6.2", "mixed", " --int8 --fp16"),
        ("10.3.0", "int8", " --stronglyTyped"),
        ("10.13.0", "float16", " --stronglyTyped"),
    ],
)
def test_the_trtexec_line_has_the_flag_of_its_version(
    version: str, precision: str, flag: str
) -> None:
    line = write_trtexec(version, precision, "model.onnx", (64, 64, 3))
    assert line.endswith(flag)
    assert "--minShapes=image:1x64x64x3" in line
    given = [part for part in ("--int8", "--fp16", "--stronglyTyped") if part in line]
    assert given == flag.split()
