"""What is no probability never becomes a diagnosis, whichever back end returns it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray
from onnx import numpy_helper
from PIL import Image

from lesiontk.backends import open_engine
from lesiontk.backends.backend import Engine
from lesiontk.backends.tflite.graph import operator_name, read_model
from lesiontk.cli.main import cli
from lesiontk.data.synthetic.dataset import render_view
from lesiontk.errors import DataError
from lesiontk.evaluate.metrics import ROW_SUM_TOLERANCE
from lesiontk.records import EngineSpec, Preprocessing
from tests.deploy.bundles import ENGINES, call_runner, make_bundle, reseal

SPEC = EngineSpec(("nv", "mel"), Preprocessing(8), "t", "tflite", "int8", "probe", "5" * 64)
IMAGE = np.zeros((1, 8, 8, 3), np.uint8)


class FixedEngine(Engine):
    """Returns what it was given."""

    def __init__(self, returned: Callable[[], Any]) -> None:
        super().__init__(SPEC)
        self._returned = returned

    def _infer(self, images: NDArray[np.uint8]) -> NDArray[Any]:
        return np.asarray(self._returned())


@pytest.mark.parametrize("row", [[0.2, 0.8], [0.0, 1.0], [0.5, 0.5 + 0.9 * ROW_SUM_TOLERANCE]])
def test_probabilities_pass(row: list[float]) -> None:
    assert FixedEngine(lambda: [row]).predict(IMAGE) == pytest.approx(np.array([row]))


@pytest.mark.parametrize(
    ("row", "received"),
    [
        ([np.nan, 1.0], r"\[0, 0\] is nan"),
        ([0.0, np.inf], r"\[0, 1\] is inf"),
        ([-0.1, 1.1], r"\[0, 0\] is -0\.1"),
        ([0.5, 0.5 + 1.1 * ROW_SUM_TOLERANCE], r"sums to 1\.011; expected 1 within 0\.01"),
        ([2.0, -3.0], "expected a probability in"),
    ],
)
def test_what_is_no_probability_is_refused(row: list[float], received: str) -> None:
    with pytest.raises(DataError, match=f"does not return probabilities: .*{received}"):
        FixedEngine(lambda: [row]).predict(IMAGE)


def test_another_number_of_values_than_of_labels_is_refused() -> None:
    with pytest.raises(DataError, match=r"returns \[1, 3\]; expected \[1, 2\].*labels nv, mel"):
        FixedEngine(lambda: [[0.2, 0.3, 0.5]]).predict(IMAGE)


def test_a_runtime_that_fails_is_an_error_of_the_file() -> None:
    def fail() -> Any:
        raise RuntimeError("node Conv_3 has no kernel")

    with pytest.raises(DataError, match="failed during inference: node Conv_3 has no kernel"):
        FixedEngine(fail).predict(IMAGE)


# --------------------------------------------------------------- damaged files


def damage_tflite(source: Path, out: Path) -> None:
    """Write the engine with the scale of its logits set to a NaN: four bytes."""
    content = source.read_bytes()
    model = read_model(content)
    graph = model.subgraphs[0]
    last = [op for op in graph.operators if operator_name(model, op) == "FULLY_CONNECTED"][-1]
    scale = np.float32(graph.tensors[last.outputs[0]].quantization.scale[0]).tobytes()
    assert scale in content
    out.write_bytes(content.replace(scale, np.float32(np.nan).tobytes()))


def damage_onnx(source: Path, out: Path) -> None:
    """Write the engine with the scale of its logits set to a NaN: four bytes."""
    model = onnx.load(source)
    dequantized = {n.output[0]: n for n in model.graph.node if n.op_type == "DequantizeLinear"}
    (softmax,) = (node for node in model.graph.node if node.op_type == "Softmax")
    name = dequantized[softmax.input[0]].input[1]
    entry = next(entry for entry in model.graph.initializer if entry.name == name)
    nan = np.full_like(numpy_helper.to_array(entry), np.nan)
    entry.CopyFrom(numpy_helper.from_array(nan, name))
    onnx.save(model, out)


REFUSALS = (
    "does not return probabilities",
    "is not a model that LiteRT can load: unsupported scale",
)
"""LiteRT itself refuses a scale that is not a number; weights in float it takes."""
DAMAGES = {"tflite_int8.tflite": damage_tflite, "onnx_int8.onnx": damage_onnx}


@pytest.fixture(params=DAMAGES)
def damaged(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / str(request.param)
    DAMAGES[path.name](ENGINES / path.name, path)
    return path


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "picture.png"
    Image.fromarray(render_view("mel", 3, 0, 200)).save(path)
    return path


def test_predict_with_a_nan_in_the_weights_is_an_error(damaged: Path, picture: Path) -> None:
    done = CliRunner().invoke(cli, ["predict", str(damaged), str(picture), "--json"])
    assert isinstance(done.exception, DataError)
    assert any(reason in str(done.exception) for reason in REFUSALS)
    assert "akiec" not in done.output
    done = CliRunner().invoke(cli, ["predict", str(ENGINES / damaged.name), str(picture)])
    assert done.exit_code == 0


def test_no_bundle_of_it_is_written(damaged: Path, tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    options = [
        "bundle",
        str(damaged),
        "--research-override",
        "--target",
        "linux-arm64",
        "--out",
        str(out),
    ]
    done = CliRunner().invoke(cli, options)
    assert isinstance(done.exception, DataError)
    assert not out.exists()


def test_nothing_is_evaluated_with_it(damaged: Path) -> None:
    with pytest.raises(DataError, match="|".join(REFUSALS)), open_engine(damaged) as engine:
        engine.predict(np.full((1, *engine.spec.input_shape), 128, np.uint8))


def test_a_bundle_whose_engine_was_damaged_later_does_not_answer(
    damaged: Path, picture: Path, tmp_path: Path
) -> None:
    folder = make_bundle(tmp_path / "bundle", damaged.name)
    (folder / damaged.name).write_bytes(damaged.read_bytes())
    reseal(folder)
    done = call_runner(folder, "predict", "--json", str(picture))
    assert (done.returncode, done.stdout) == (2, "")
    if damaged.suffix == ".onnx":
        assert "expected finite probabilities that sum to 1" in done.stderr
        done = call_runner(folder, "self-test", "--json", "--rounds", "0")
        assert done.returncode == 1
        assert json.loads(done.stdout)["answers"]["probabilities"] is False
