"""``lesiontk check``: what TensorRT would refuse, by node."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import onnx
import pytest
from click.testing import CliRunner, Result

from lesiontk.backends.tensorrt import on_device
from lesiontk.backends.tensorrt.findings import Finding, group_findings
from lesiontk.cli.main import cli
from lesiontk.errors import DataError, UsageError
from lesiontk.store import Store
from tests.backends.tensorrt.conftest import *  # noqa: F403 - the graphs of the back end
from tests.backends.tensorrt.damaged_graphs import make_asymmetric
from tests.backends.tensorrt.device import answer
from tests.backends.tensorrt.fake_tensorrt import NO_DRIVER, FakeMemory, FakeTensorRT


def call(model: onnx.ModelProto, folder: Path, *words: str) -> Result:
    onnx.save(model, folder / "model.onnx")
    return CliRunner().invoke(cli, ["check", str(folder / "model.onnx"), *words])


def test_a_graph_that_is_taken(int8: onnx.ModelProto, tmp_path: Path) -> None:
    done = call(int8, tmp_path, "--target", "jetson-orin-jetpack6")
    assert done.exit_code == 0, done.output
    assert (
        "model.onnx: nothing found by rules, the operators of TensorRT 8.6.2, 10.3.0" in done.output
    )


def test_each_refused_node_is_named(int8: onnx.ModelProto, tmp_path: Path) -> None:
    make_asymmetric(int8)
    done = call(int8, tmp_path, "--tensorrt", "8.5.2", "--json")
    assert done.exit_code == 1
    document = json.loads(done.stdout)
    assert document["versions"] == ["8.5.2"]
    assert any("asymmetric" in finding["reason"] for finding in document["findings"])
    assert all(finding["node"] and finding["operator"] for finding in document["findings"])
    text = call(int8, tmp_path).output
    assert "asymmetric: its zero point is" in text
    assert "finding(s) found by rules" in text


@pytest.mark.parametrize("driver", [True, False])
def test_only_a_parser_that_ran_is_named(
    driver: bool, int8: onnx.ModelProto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TensorRT proper has no parser where there is no driver."""
    trt = FakeTensorRT("10.3.0", FakeMemory(), answer, driver=driver)
    monkeypatch.setattr(on_device, "import_tensorrt", lambda: trt)
    document = json.loads(call(int8, tmp_path, "--json").stdout)
    text = call(int8, tmp_path).output
    if driver:
        assert (document["parser"], document["no_parser"]) == ("tensorrt 10.3.0", None)
        assert "and the parser of tensorrt 10.3.0" in text
        return
    assert document["parser"] is None
    assert document["no_parser"] == (
        "tensorrt 10.3.0: TensorRT's builder requires an NVIDIA driver and GPU: " + NO_DRIVER
    )
    assert f"no parser of TensorRT read it: {document['no_parser']}" in text


def test_without_tensorrt_the_way_to_a_parser_is_told(
    int8: onnx.ModelProto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    done = call(int8, tmp_path, "--json")
    assert done.exit_code == 0
    document = json.loads(done.stdout)
    assert document["parser"] is None
    assert "pip install lesiontk[tensorrt-rtx]" in document["no_parser"]


def test_findings_are_grouped_unless_each_is_asked_for(
    int8: onnx.ModelProto, tmp_path: Path
) -> None:
    make_asymmetric(int8)
    document = json.loads(call(int8, tmp_path, "--json").stdout)
    grouped = call(int8, tmp_path).output.splitlines()[:-1]
    each = call(int8, tmp_path, "--verbose").output.splitlines()[:-1]
    assert len(each) == len(document["findings"])
    assert len(grouped) == len(document["groups"])
    assert sum(group["nodes"] for group in document["groups"]) == len(document["findings"])


def test_groups_differ_in_operator_and_reason_and_not_in_numbers() -> None:
    findings = [
        Finding("lint", f"q{n}", "QuantizeLinear", f"its zero point is {n}; expected 0")
        for n in range(1, 100)
    ]
    findings += [Finding("lint", "gelu", "Gelu", "TensorRT 8.5 does not import it")]
    groups = group_findings(findings)
    assert [str(group) for group in groups] == [
        "QuantizeLinear: its zero point is 1; expected 0 (lint): 99 nodes, the first q1",
        "Gelu: TensorRT 8.5 does not import it (lint): 1 node, gelu",
    ]


def test_an_engine_of_the_workspace_is_found_or_told(
    store: Store, tmp_path: Path, int8: onnx.ModelProto
) -> None:
    def check(*words: str) -> Result:
        return CliRunner().invoke(cli, ["check", *words, "--workspace", str(store.workspace)])

    error = check("latest").exception
    assert isinstance(error, UsageError)
    assert "no ONNX engine in" in str(error)
    onnx.save(int8, tmp_path / "any_name")
    assert check(str(tmp_path / "any_name")).exit_code == 0
    assert isinstance(check(str(tmp_path)).exception, DataError)
    assert "missing.onnx does not exist" in str(check("missing.onnx").exception)
