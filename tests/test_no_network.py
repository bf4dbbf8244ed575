"""Nothing leaves the machine: ONNX Runtime is loaded in one place, without its telemetry."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from lesiontk.data.synthetic.dataset import render_view, write_synthetic_dataset
from tests.deploy.bundles import ENGINES, make_bundle
from tests.network_attempts import isolated, list_attempts

__all__ = ["isolated"]

TOOLKIT = Path(__file__).parents[1] / "toolkit" / "lesiontk"
LOADERS = {"system/frameworks.py", "deploy/runner/onnx_runtime.py"}
"""The one place of the toolkit, and the bundle's own."""
ENGINE = ENGINES / "onnx_int8.onnx"


def list_imports(tree: ast.AST) -> set[str]:
    """Return the modules that a file imports, also by a name in text."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(str(node.module))
        elif isinstance(node, ast.Call) and "import_module" in ast.unparse(node.func):
            found |= {ast.unparse(argument).strip("'\"f") for argument in node.args}
    return found


def test_onnx_runtime_is_imported_in_one_place() -> None:
    found = {
        path.relative_to(TOOLKIT).as_posix()
        for path in TOOLKIT.rglob("*.py")
        if any("onnxruntime" in name for name in list_imports(ast.parse(path.read_text())))
    }
    assert found == LOADERS


def test_file_systems_of_other_machines_are_imported_for_a_shared_store_alone() -> None:
    found = {
        path.relative_to(TOOLKIT).as_posix()
        for path in TOOLKIT.rglob("*.py")
        if any(
            name.partition(".")[0] in ("fsspec", "s3fs")
            for name in list_imports(ast.parse(path.read_text()))
        )
    }
    assert found == {"store/shared.py", "store/shared_url.py"}


@pytest.mark.parametrize("name", sorted(LOADERS))
def test_telemetry_is_off_before_it_is_imported(name: str) -> None:
    text = (TOOLKIT / name).read_text()
    off = text.index('os.environ["ORT_DISABLE_TELEMETRY"] = "1"')
    assert off < min(m.start() for m in re.finditer(r"import onnxruntime\n|onnxruntime\.\{", text))


RECORD = """
import os, sys, types
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "onnxruntime":
            print("telemetry off:", os.environ.get("ORT_DISABLE_TELEMETRY"))
            raise ImportError("only asked for")
sys.meta_path.insert(0, Finder())
"""
CALLS = {
    "toolkit": "from lesiontk.backends import open_engine; open_engine(sys.argv[1])",
    "bundle": "sys.path.insert(0, sys.argv[2]); import onnx_runtime; "
    "onnx_runtime.Engine(sys.argv[1], 1)",
}


@pytest.mark.parametrize("caller", CALLS)
def test_telemetry_is_off_when_it_is_imported(caller: str) -> None:
    settings = {name: v for name, v in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    runner = TOOLKIT / "deploy" / "runner"
    done = subprocess.run(
        [sys.executable, "-c", RECORD + CALLS[caller], str(ENGINE), str(runner)],
        capture_output=True, text=True, check=False, env=settings,
    )  # fmt: skip
    assert set(done.stdout.splitlines()) == {"telemetry off: 1"}


# ------------------------------------------------------------- what is attempted


def test_an_attempt_would_be_seen(isolated: Path) -> None:
    code = "import socket; s = socket.socket(2, 2); s.connect_ex(('192.0.2.1', 9))"
    assert len(list_attempts(isolated, sys.executable, "-c", code)) == 1


@pytest.mark.slow
def test_a_bundle_attempts_nothing(isolated: Path) -> None:
    folder = make_bundle(isolated / "bundle", ENGINE)
    Image.fromarray(render_view("mel", 3, 0, 200)).save(isolated / "picture.png")
    run = [sys.executable, str(folder / "run.py")]
    # The first attempt of its telemetry came ten seconds after the start, on a loaded machine.
    assert list_attempts(isolated, *run, "self-test", "--rounds", "2000") == []
    assert list_attempts(isolated, *run, "predict", "picture.png") == []


@pytest.mark.slow
@pytest.mark.parametrize("command", ["predict", "evaluate", "bench"])
def test_the_command_line_attempts_nothing(command: str, isolated: Path) -> None:
    write_synthetic_dataset(isolated / "images", lesions=14, image_size=32, seed=3)
    picture = str(next((isolated / "images").glob("*/*.jpg")))
    options = {
        "predict": [picture],
        "evaluate": ["--images", "images", "--set", "evaluate.resamples=100"],
        "bench": ["--set", "bench.rounds=20", "--set", "bench.repeats=0"],
    }[command]
    words = [sys.executable, "-m", "lesiontk", command, str(ENGINE), *options]
    assert list_attempts(isolated, *words) == []
