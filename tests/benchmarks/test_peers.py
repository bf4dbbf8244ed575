"""The comparison with other tools: what it counts, what it describes, and its faults."""

from __future__ import annotations

import ast
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from lesiontk.backends import find_backend, open_engine
from lesiontk.data.images import ImageSet
from lesiontk.data.tasks import load_task
from lesiontk.records import EngineSpec, Preprocessing
from tests.bench.measurements import make_attempt, make_measurement
from tests.loose_modules import load_benchmark

PEERS = load_benchmark("peers.compare")
SPEC = EngineSpec(("a", "b"), Preprocessing(8), "", "onnx", "float32", "probe", split_hash="")


@pytest.mark.parametrize("tool", PEERS.TOOLS, ids=lambda tool: tool.script)
def test_a_script_has_pinned_requirements_and_its_lines_are_counted(tool: Any) -> None:
    script = PEERS.HERE / tool.script
    pins = script.with_suffix(".txt").read_text().split()
    assert pins
    assert all("==" in pin or pin.startswith("setuptools<") for pin in pins)
    tree = ast.parse(script.read_text())
    spans = {
        line
        for node in ast.walk(tree)
        if isinstance(node, ast.stmt)
        and not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))
        for line in range(node.lineno, (node.end_lineno or 0) + 1)
    }
    docstrings = {
        line
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        for line in range(node.lineno, (node.end_lineno or 0) + 1)
    }
    blank = {
        number
        for number, line in enumerate(script.read_text().splitlines(), start=1)
        if not line.strip() or line.strip().startswith("#")
    }
    assert tool.lines == len(spans - docstrings - blank)
    assert 10 <= tool.lines <= 30


def make_float_graph(path: Path) -> None:
    """Write probabilities of two classes from float bytes [1, 8, 8, 3]."""
    rng = np.random.default_rng(0)
    weights = rng.normal(0, 0.003, (192, 2)).astype(np.float32)
    graph = onnx.helper.make_graph(
        [
            onnx.helper.make_node("Flatten", ["image"], ["flat"]),
            onnx.helper.make_node("Gemm", ["flat", "weights"], ["logits"]),
            onnx.helper.make_node("Softmax", ["logits"], ["probabilities"]),
        ],
        "probe",
        [onnx.helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, [1, 8, 8, 3])],
        [onnx.helper.make_tensor_value_info("probabilities", onnx.TensorProto.FLOAT, [1, 2])],
        [onnx.numpy_helper.from_array(weights, "weights")],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)])
    model.ir_version = 10
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def test_a_described_graph_takes_bytes_and_returns_the_same(tmp_path: Path) -> None:
    path = tmp_path / "engine.onnx"
    make_float_graph(path)
    images = np.random.default_rng(1).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)
    with PEERS.open_any(path, PEERS.ForeignDescription(SPEC.labels)) as engine:
        expected = engine.predict(images)
    PEERS.describe(path, SPEC)
    with open_engine(path) as engine:
        assert engine.spec == SPEC
        np.testing.assert_allclose(engine.predict(images), expected, rtol=0, atol=1e-6)
    assert find_backend(path).info.name == "onnx"


def test_a_tool_that_fails_is_kept_with_its_last_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PEERS, "HERE", tmp_path)
    monkeypatch.setattr(PEERS, "make_environment", lambda name, folder: Path(sys.executable))
    script = tmp_path / "with_probe.py"
    script.write_text('"""A tool."""\n\nimport sys\n\nraise SystemExit("no such operator")\n')
    tool = PEERS.Tool("probe", script.name, "tflite")
    made = PEERS.call_tool(tool, SPEC, tmp_path, tmp_path)
    assert made.failure == "with_probe.py ended with 1: no such operator"
    assert (made.file, made.lines) == ("", 2)
    script.unlink()  # what was tried is not tried again
    assert PEERS.call_tool(tool, SPEC, tmp_path, tmp_path) == made


def test_a_tool_is_called_with_the_folder_and_timed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PEERS, "HERE", tmp_path)
    monkeypatch.setattr(PEERS, "make_environment", lambda name, folder: Path(sys.executable))
    (tmp_path / "with_probe.py").write_text(
        '"""A tool."""\nimport sys, time\nfrom pathlib import Path\n'
        "start = time.process_time()\nwhile time.process_time() < start + 0.3:\n    pass\n"
        "Path(sys.argv[2]).write_text(sys.argv[1])\n"
    )
    tool = PEERS.Tool("probe", "with_probe.py", "tflite")
    made = PEERS.call_tool(tool, SPEC, tmp_path, tmp_path)
    assert Path(made.file).read_text() == str(tmp_path)
    assert made.failure == ""
    assert made.cpu_seconds >= 0.3


def test_the_table_has_every_tool_fastest_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = load_task("malignancy").labels
    rng = np.random.default_rng(2)
    truth = rng.integers(0, 2, 60)
    images = ImageSet(
        pixels=np.zeros((60, 8, 8, 3), np.uint8),
        targets=truth,
        image_ids=tuple(map(str, range(60))),
        groups=tuple(str(number // 2) for number in range(60)),
        hashes=(),
        subsets=("test",) * 60,
        labels=labels,
        task="malignancy",
        critical="malignant",
        preprocessing=Preprocessing(8),
        split_hash="",
    )

    class Engine:
        spec = SPEC

        def __enter__(self) -> Engine:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def predict(self, pixels: Any) -> Any:
            scores = rng.dirichlet((1, 1), len(pixels))
            scores[np.arange(60), truth] += 1
            return scores

    monkeypatch.setattr(PEERS, "open_any", lambda path, foreign: Engine())
    monkeypatch.setattr(PEERS, "read_published_images", lambda *_: images)
    nncf, own = "NNCF, on OpenVINO", "lesiontk, OpenVINO int8"
    seconds = {"lesiontk, float32": 4.0, nncf: 1.0, own: 2.0}
    measured = {
        name: replace(
            make_measurement(make_attempt((time + rng.uniform(0, 0.1, 9)).tolist())),
            size_bytes=1_500_000,
        )
        for name, time in seconds.items()
    }
    monkeypatch.setattr(PEERS, "measure_engines", lambda *_: measured)
    made = {name: PEERS.Made(name, 3.0, 2.0, 12) for name in seconds}
    made["broken"] = PEERS.Made("", 0.0, 0.0, 12, "with_broken.py ended with 1: no")
    files = {name: Path(row.file) for name, row in made.items() if not row.failure}
    rows = PEERS.judge(files, made, SPEC, "probe", tmp_path, 20, 50)
    network = {"rows": rows, "image_size": 8, "rounds": 9, "split_hash": "0" * 64}
    machine = {"processor": "a CPU", "int8_features": ["vnni"]}
    text = PEERS.render({"machine": machine, "networks": {"probe": network}})
    table = [line.split(" | ") for line in text.splitlines() if line.startswith("| ")][2:]
    assert [row[0] for row in table] == [f"| {nncf}", f"| **{own}**", "| **lesiontk, float32**"]
    quick, slow, parent = (row[1] for row in table)
    assert 3.5 < float(quick.split("×")[0]) < 4.2
    assert 1.8 < float(slow.split("×")[0]) < 2.1
    assert parent == "1"
    assert re.search(r"- NNCF, on OpenVINO: faster \(\S+× to \S+×\)$", text, re.MULTILINE)
    assert "broken made no engine: `with_broken.py ended with 1: no`." in text
    assert "n = 60 test images of 30 lesions" in text
