"""``lesiontk build``: a plan of an ONNX file, or what is wrong with the call."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import onnx
import pytest
from click.testing import CliRunner, Result

from lesiontk.backends.tensorrt import on_device
from lesiontk.cli.main import cli
from lesiontk.errors import DataError, LesionTKError, MissingRequirementError
from lesiontk.report.formatting import format_bytes
from tests.backends.tensorrt.conftest import *  # noqa: F403 - the graphs of the back end
from tests.backends.tensorrt.damaged_graphs import make_asymmetric
from tests.backends.tensorrt.device import answer
from tests.backends.tensorrt.fake_tensorrt import FakeMemory, FakeTensorRT, make_plan

PUBLISHED = Path(__file__).parents[2] / "benchmarks/engines/cnn_binary/tensorrt_int8.onnx"


def call(*words: str | Path) -> Result:
    return CliRunner().invoke(cli, ["build", *map(str, words)])


def call_refused(*words: str | Path) -> LesionTKError:
    """Return the error of a call, which `main` turns into a line and an exit code."""
    done = call(*words)
    assert isinstance(done.exception, LesionTKError), done.output
    return done.exception


@pytest.fixture
def file(tmp_path: Path, int8: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A graph, in the folder where the command is called."""
    monkeypatch.chdir(tmp_path)
    onnx.save(int8, tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a stand-in of TensorRT 8.6 is asked."""
    trt = FakeTensorRT("8.6.2", FakeMemory(), answer)
    monkeypatch.setattr(on_device, "import_tensorrt", lambda: trt)
    return trt.log


# ------------------------------------------------------- with TensorRT for RTX


def test_a_published_engine_is_built_and_again_to_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trt = pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
    monkeypatch.setattr(on_device, "import_tensorrt", lambda: trt)
    plans = [tmp_path / "first.plan", tmp_path / "again.plan"]
    wanted = ["--capability", "sm_86", "--capability", "SM89"]
    first, again = (
        json.loads(call(PUBLISHED, "--out", p, *wanted, "--json").stdout) for p in plans
    )
    assert plans[0].read_bytes() == plans[1].read_bytes()
    assert {**again, "path": str(plans[0])} == first
    assert first["bytes"] == plans[0].stat().st_size > 100_000
    assert first["sha256"] == hashlib.sha256(plans[0].read_bytes()).hexdigest()
    assert first["builder"] == f"tensorrt_rtx {trt.__version__}"
    assert (first["batches"], first["capabilities"]) == ([1, 1, 1], ["SM86", "SM89"])
    assert first["precision"] == "int8"
    assert first["operators"]["int8"] > first["operators"]["float32"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again.plan", "first.plan"]
    text = call(PUBLISHED, "--out", plans[0], *wanted).output
    assert f"tensorrt_rtx {trt.__version__} for one image at a time, on SM86, SM89\n" in text
    assert f"operators of its graph: {first['operators']['int8']} in int8, " in text


def test_a_refused_graph_leaves_the_earlier_plan(file: Path, int8: onnx.ModelProto) -> None:
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
    assert call(file).exit_code == 0
    built = Path("model.plan").read_bytes()
    make_asymmetric(int8)
    onnx.save(int8, file)
    error = call_refused(file)
    assert isinstance(error, DataError)
    assert "model.onnx: TensorRT's parser rejects the graph: second/q" in str(error)
    assert Path("model.plan").read_bytes() == built


# -------------------------------------------------------------- with a stand-in


def test_the_settings_reach_tensorrt(file: Path, log: list[str]) -> None:
    done = call(file, "--batches", "1,2,8", "--workspace-limit", "64", "--timing-cache", "timings")
    assert done.exit_code == 0, done.output
    size = format_bytes(Path("model.plan").stat().st_size)
    assert done.output.splitlines()[-2] == (
        f"model.plan: {size}, built by tensorrt 8.6.2 for batches of 1 to 8 images, tuned for 2"
    )
    assert Path("model.plan").read_bytes() == make_plan("8.6.2", file.read_bytes())
    assert {f"workspace {64 << 20}", "flag INT8", "profile image [1, 2, 8]"} <= set(log)
    assert Path("timings").read_bytes() == b"timed;"


@pytest.mark.parametrize(
    ("precision", "flags"),
    [("float32", []), ("float16", ["flag FP16"]), ("mixed", ["flag INT8", "flag FP16"])],
)
def test_the_precision_is_that_of_the_graph(
    precision: str, flags: list[str], file: Path, log: list[str], request: pytest.FixtureRequest
) -> None:
    onnx.save(request.getfixturevalue(precision), file)
    assert json.loads(call(file, "--json").stdout)["precision"] == precision
    assert [word for word in log if word.startswith("flag")] == flags


# -------------------------------------------------------------------- bad calls


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["model.onnx", "--batches", "1,2"], "--batches is '1,2'; expected three batch sizes"),
        (
            ["model.onnx", "--batches", "1,two,3"],
            "--batches is '1,two,3'; expected three batch sizes",
        ),
        (
            ["model.onnx", "--batches", "4,2,8"],
            r"are \[4, 2, 8\]; expected 1 <= minimum <= optimum",
        ),
        (["absent.onnx"], "engine file absent.onnx does not exist"),
        (["absent"], "no engine in .* matches 'absent'"),
        (["text.onnx"], "text.onnx is not a valid ONNX model"),
        (["model.onnx", "--out", "nowhere/model.plan"], "nowhere/model.plan cannot be written"),
        (["model.onnx", "--timing-cache", "nowhere/timings"], "nowhere/timings cannot be written"),
        (
            ["model.onnx", "--capability", "sm_86"],
            r"received compute capabilities \['SM86'\]",
        ),
    ],
)
def test_a_bad_call_says_what_was_expected(
    words: list[str], said: str, file: Path, log: list[str]
) -> None:
    file.with_name("text.onnx").write_text("this is no model")
    error = call_refused(*words)
    assert error.exit_code == 2
    with pytest.raises(LesionTKError, match=said):
        raise error
    assert not list(file.parent.glob("*.plan"))
    assert "build" not in log


def test_without_tensorrt_the_exit_code_is_3(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    error = call_refused(file)
    assert isinstance(error, MissingRequirementError)
    assert error.exit_code == 3
    assert "pip install lesiontk[tensorrt-rtx]" in str(error)
