"""A bundle answers with the files that were written, or not at all."""

from __future__ import annotations

import json
import marshal
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from importlib.util import MAGIC_NUMBER, cache_from_source
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from lesiontk.data.synthetic.dataset import render_view
from lesiontk.deploy.runner.integrity import DamagedBundleError, check_files
from tests.deploy.bundles import call_runner, make_bundle, read_contract, reseal
from tests.loose_modules import load_module

FLIPS = 130


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("whole") / "bundle", "tflite_int8.tflite")


@pytest.fixture
def bundle(whole: Path, tmp_path: Path) -> Path:
    shutil.copytree(whole, tmp_path / "bundle")
    Image.fromarray(render_view("mel", 3, 0, 200)).save(tmp_path / "bundle" / "picture.png")
    return tmp_path / "bundle"


@pytest.fixture(scope="module")
def run(whole: Path) -> ModuleType:
    return load_module(whole / "run.py")


def find_damage(bundle: Path, run: ModuleType) -> str:
    """Return what is said of a bundle's files; empty if they are whole."""
    try:
        check_files(bundle, run.read_checksums(bundle)).require(["bundle.json"])
    except (run.DamagedError, DamagedBundleError) as error:
        return str(error)
    return ""


def test_every_flipped_byte_is_found(bundle: Path, run: ModuleType) -> None:
    random = np.random.default_rng(0)
    (bundle / "picture.png").unlink()
    files = sorted(path for path in bundle.rglob("*") if path.is_file() and path.stat().st_size)
    for turn in range(FLIPS):
        path = files[turn % len(files)]
        content = path.read_bytes()
        changed = bytearray(content)
        changed[random.integers(len(content))] ^= 1 << int(random.integers(8))
        path.write_bytes(changed)
        assert "A bundle with changed files does not run" in find_damage(bundle, run), path
        path.write_bytes(content)
    assert find_damage(bundle, run) == ""


def reverse_labels(bundle: Path) -> None:
    contract = read_contract(bundle)
    contract["labels"].reverse()
    (bundle / "bundle.json").write_text(json.dumps(contract, indent=1) + "\n")


def forget(name: str) -> Callable[[Path], None]:
    def change(bundle: Path) -> None:
        sums = bundle / "SHA256SUMS"
        kept = [line for line in sums.read_text().splitlines() if not line.endswith("  " + name)]
        sums.write_text("\n".join(kept) + "\n")

    return change


CHANGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "labels": (reverse_labels, "bundle.json was changed"),
    "emptied": (lambda b: (b / "SHA256SUMS").write_text(""), "command.py is not listed"),
    "no list": (lambda b: (b / "SHA256SUMS").unlink(), "SHA256SUMS cannot be read"),
    "broken list": (lambda b: (b / "SHA256SUMS").write_text("mine\n"), "line 1 of SHA256SUMS is"),
    "no engine": (lambda b: (b / "tflite_int8.tflite").unlink(), "tflite_int8.tflite is missing"),
    "unlisted contract": (forget("bundle.json"), "bundle.json is not listed in SHA256SUMS"),
    "unlisted engine": (forget("tflite_int8.tflite"), "tflite_int8.tflite is not listed"),
    "unlisted code": (forget("crop.py"), "crop.py is not listed in SHA256SUMS"),
    "foreign code": (lambda b: (b / "PIL.py").write_text(""), "PIL.py is not listed in SHA256SUMS"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_predict_does_not_answer_with_changed_files(name: str, bundle: Path) -> None:
    change, said = CHANGES[name]
    change(bundle)
    done = call_runner(bundle, "predict", str(bundle / "picture.png"))
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert "Traceback" not in done.stderr


MARK = "open({!r}, 'w')"


def plant_module(bundle: Path, mark: str) -> None:
    (bundle / "numpy.py").write_text(mark)


def plant_package(bundle: Path, mark: str) -> None:
    """Python takes a folder before a file of the same name."""
    for name in ("numpy", "PIL", "picture", "decision", "onnxruntime", "ai_edge_litert"):
        (bundle / name).mkdir()
        (bundle / name / "__init__.py").write_text(mark)


def plant_compiled(bundle: Path, mark: str) -> None:
    """What Python keeps of a module that it compiled, with the time and size of the true one."""
    code = compile((bundle / "decision.py").read_text() + mark, "decision.py", "exec")
    state = (bundle / "decision.py").stat()
    header = MAGIC_NUMBER + struct.pack("<III", 0, int(state.st_mtime), state.st_size)
    place = Path(cache_from_source(str(bundle / "decision.py")))
    place.parent.mkdir()
    place.write_bytes(header + marshal.dumps(code))
    (bundle / "flatbuffers.pyc").write_bytes(header + marshal.dumps(code))


@pytest.mark.parametrize("words", [("predict", "picture.png"), ("self-test", "--rounds", "0")])
@pytest.mark.parametrize("plant", [plant_module, plant_package, plant_compiled])
def test_code_that_the_list_does_not_name_is_never_run(
    plant: Callable[[Path, str], None], words: tuple[str, ...], bundle: Path, tmp_path: Path
) -> None:
    mark = tmp_path / "was run"
    plant(bundle, MARK.format(str(mark)))
    done = subprocess.run(
        [sys.executable, "run.py", *words],
        capture_output=True, text=True, check=False, cwd=bundle, timeout=100,
    )  # fmt: skip
    assert not mark.exists()
    assert "Traceback" not in done.stderr
    if plant is plant_module:
        assert "numpy.py is not listed in SHA256SUMS" in done.stderr + done.stdout
    else:
        assert done.returncode == 0, done.stderr


def test_the_self_test_runs_no_changed_code(bundle: Path, tmp_path: Path) -> None:
    mark = tmp_path / "was run"
    with (bundle / "crop.py").open("a") as stream:
        stream.write(MARK.format(str(mark)))
    done = call_runner(bundle, "self-test", "--rounds", "0")
    assert (done.returncode, done.stdout) == (2, "")
    assert "crop.py was changed. A bundle with changed files does not run" in done.stderr
    assert not mark.exists()


@pytest.mark.parametrize("name", ["SHA256SUMS", "bundle.json", "golden.npz"])
def test_a_pipe_in_the_place_of_a_file_does_not_block(name: str, bundle: Path) -> None:
    (bundle / name).unlink()
    os.mkfifo(bundle / name)
    for words in (("predict", str(bundle / "picture.png")), ("self-test",)):
        done = call_runner(bundle, *words)
        assert (done.returncode, done.stdout) == (2, "")
        assert name in done.stderr
        assert "Traceback" not in done.stderr


def test_it_answers_with_pictures_and_answers_in_its_folder(bundle: Path) -> None:
    (bundle / "answers.json").write_text("{}")
    done = call_runner(bundle, "predict", str(bundle / "picture.png"))
    assert done.returncode == 0, done.stderr
    reseal(bundle)  # the twin: what is listed anew is believed
    assert call_runner(bundle, "predict", str(bundle / "picture.png")).returncode == 0


def test_the_self_test_names_what_is_not_listed(bundle: Path) -> None:
    forget("bundle.json")(bundle)
    done = call_runner(bundle, "self-test", "--rounds", "0")
    assert done.returncode == 1
    assert "files: bundle.json is not listed in SHA256SUMS" in done.stdout
    assert "NOT AS EXPECTED" in done.stdout
