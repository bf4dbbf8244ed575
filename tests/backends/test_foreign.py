"""Engine files of other tools: timed as they are, judged once their outputs have names."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result
from onnx import TensorProto, helper

from lesiontk.backends import open_any, open_engine
from lesiontk.backends.foreign import ForeignDescription, ForeignInput
from lesiontk.backends.foreign_engine import restore_sums
from lesiontk.backends.tflite.graph import dump_model, read_model
from lesiontk.cli.main import cli
from lesiontk.data.synthetic.dataset import write_synthetic_dataset
from lesiontk.errors import DataError, LesionTKError, UsageError
from lesiontk.evaluate.metrics import ROW_SUM_TOLERANCE
from lesiontk.progress import NoProgress
from lesiontk.recipe import EvaluateRule
from lesiontk.workflow.evaluate import evaluate_folder
from tests.deploy.bundles import ENGINES
from tests.measuring import measuring_here

LABELS = "akiec,bcc,bkl,df,mel,nv,vasc"
OWN = ENGINES / "tflite_int8.tflite"
QUICK = ["--set", "bench.rounds=20", "--set", "evaluate.resamples=100"]


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """The published engine without a word of what it is."""
    model = read_model(OWN.read_bytes())
    model.metadata = []
    path = tmp_path / "plain.tflite"
    path.write_bytes(dump_model(model))
    return path


def make_onnx(
    path: Path, shape: list[int | str], kind: int = TensorProto.FLOAT, outputs: int = 7
) -> Path:
    """Write a graph whose first output is the mean of the input's first channel."""
    channels_first = shape[1] == 3
    weights = np.zeros((3, outputs), np.float32)
    weights[0, 0] = 1
    axes = [2, 3] if channels_first else [1, 2]
    nodes = [
        helper.make_node("Cast", ["image"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["real"], ["mean"], axes=axes, keepdims=0),
        helper.make_node("MatMul", ["mean", "weights"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "foreign",
        [helper.make_tensor_value_info("image", kind, shape)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", outputs])],
        [helper.make_tensor("weights", TensorProto.FLOAT, [3, outputs], weights.ravel())],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    return path


def bench(*words: str) -> Result:
    with measuring_here():
        return CliRunner().invoke(cli, ["bench", *words, *QUICK, "--json"])


def test_bench_times_a_file_of_other_tools(plain: Path, tmp_path: Path) -> None:
    other = make_onnx(tmp_path / "other.onnx", ["N", 3, 32, 32])
    done = bench(str(plain), str(other))
    assert done.exit_code == 0, done.output
    rows = {row["engine"]: row for row in json.loads(done.stdout)["rows"]}
    for path, size in ((plain, 128), (other, 32)):
        row = rows[str(path)]
        assert row["latency_ms"]["n"] >= 20
        assert row["size_bytes"] == path.stat().st_size
        assert row["peak_memory_bytes"] > 10_000_000
        assert (row["image_size"], row["metrics"], row["n"]) == (size, {}, None)


def test_with_labels_and_images_it_scores_as_lesiontks_own_engine(
    plain: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "images"
    write_synthetic_dataset(folder, lesions=28, image_size=32, seed=3)
    done = bench(str(plain), "--labels", LABELS, "--images", str(folder))
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    (row,) = document["rows"]
    own = evaluate_folder(OWN, folder, None, EvaluateRule(resamples=100), NoProgress())
    assert document["labels"] == list(own.labels)
    assert row["n"] == own.n
    for name in ("balanced_accuracy", "recall[mel]"):
        assert row["metrics"][name]["value"] == own.metrics[name].value
    turned = ",".join(reversed(LABELS.split(",")))  # the twin: names in another order
    done = bench(str(plain), "--labels", turned, "--images", str(folder))
    assert isinstance(done.exception, UsageError)
    assert "in the order of the outputs, with --labels: seven_class: akiec" in str(done.exception)


def test_probabilities_in_eight_bits_sum_to_one_again() -> None:
    """Seven of them may be half a step too low or too high; other sums stay for the check."""
    worst = [*[2.46 / 256] * 6, 1 - 6 * 2.46 / 256]
    exact = np.array([worst, np.full(7, 1 / 7)], np.float32)
    coarse = np.round(exact * 256) / 256
    assert np.abs(coarse.sum(axis=1) - 1).max() > ROW_SUM_TOLERANCE
    restored = restore_sums(coarse)
    np.testing.assert_allclose(restored.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(restored, exact, atol=8 / 512)
    logits = np.array([[2.0, -1.0, 3.0]], np.float32)
    assert (restore_sums(logits) == logits).all()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--labels", "a,b,c"], r"returns \[1, 7\]; expected \[1, 3\]"),
        (["--pixels", "0..2"], r"expected one of 0\.\.255, 0\.\.1, -1\.\.1"),
    ],
)
def test_a_wrong_description_is_an_error(words: list[str], said: str, plain: Path) -> None:
    done = bench(str(plain), *words)
    assert isinstance(done.exception, LesionTKError)
    assert done.exception.exit_code == 2
    with pytest.raises(LesionTKError, match=said):
        raise done.exception


def test_predict_still_wants_a_description(plain: Path) -> None:
    with pytest.raises(DataError, match="contains no lesiontk description"):
        open_engine(plain)


def test_what_a_file_says_goes_before_what_is_told() -> None:
    with open_any(OWN, ForeignDescription(("a", "b", "c"))) as engine:
        assert engine.spec.labels == tuple(LABELS.split(","))


@pytest.mark.parametrize(("pixels", "white"), [("0..255", 255.0), ("0..1", 1.0), ("-1..1", 1.0)])
@pytest.mark.parametrize("shape", [["N", 3, 8, 8], [1, 8, 8, 3]])
def test_float_inputs_get_pixels_in_their_range(
    pixels: str, white: float, shape: list[int | str], tmp_path: Path
) -> None:
    path = make_onnx(tmp_path / "a.onnx", shape)
    images = np.zeros((2, 8, 8, 3), np.uint8)
    images[1, ..., 0] = 255
    with open_any(path, ForeignDescription(pixels=pixels)) as engine:
        assert engine.infer(images)[1, 0] == pytest.approx(white, abs=1e-6)
        assert engine.infer(images)[0, 0] == pytest.approx(-1.0 if pixels == "-1..1" else 0.0)
        with pytest.raises(DataError, match="does not return probabilities"):
            engine.predict(images[1:] // 2 + 3)


def test_bytes_go_in_as_they_are(tmp_path: Path) -> None:
    path = make_onnx(tmp_path / "a.onnx", [1, 8, 8, 3], TensorProto.UINT8)
    with open_any(path, ForeignDescription(pixels="0..1")) as engine:
        assert engine.infer(np.full((1, 8, 8, 3), 7, np.uint8))[0, 0] == 7


def test_signed_bytes_are_shifted(tmp_path: Path) -> None:
    given = ForeignInput.from_shape((1, 4, 4, 3), np.dtype(np.int8), tmp_path, "0..1")
    values = given.prepare(np.array([0, 128, 255], np.uint8).reshape(1, 1, 1, 3))
    assert values.dtype == np.int8
    assert values.ravel().tolist() == [-128, 0, 127]


@pytest.mark.parametrize("shape", [[1, 8, 9, 3], [1, 8, 8, 1], [8, 8, 3], ["N", "H", "W", 3]])
def test_what_takes_no_square_images_is_refused(shape: list[int | str], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expected square RGB images"):
        ForeignInput.from_shape(tuple(shape), np.dtype(np.float32), tmp_path / "a.onnx", "0..255")
