"""``lesiontk check``: what TensorRT would refuse, by node."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
from click.testing import CliRunner, Result

from lesiontk.cli.main import cli

from ..backends.tensorrt.conftest import *  # noqa: F403 - the graphs of the back end
from ..backends.tensorrt.test_lint import make_asymmetric


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
