"""Damaged engine files: an answer, or exit 2 with the reason; no crash, hang, bug or NaN.

A changed weight that is still a number cannot be told from that of another network by its file:
such a file answers. What it answers are probabilities.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from lesiontk.data.synthetic.dataset import render_view
from tests.end_to_end.command_line import call_lesiontk
from tests.fuzz.mutation import mutate_bytes

ENGINES = Path(__file__).parents[2] / "benchmarks" / "engines" / "cnn_binary"
WORKER = Path(__file__).parent / "predict_worker.py"


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "picture.png"
    Image.fromarray(render_view("mel", 3, 0, 64)).save(path)
    return path


def damage(name: str, count: int, seed: int, folder: Path) -> list[Path]:
    """Write damaged copies of a published engine; returns their files."""
    chance = random.Random(seed)
    content = (ENGINES / name).read_bytes()
    files = [folder / f"{number}_{name}" for number in range(count)]
    for file in files:
        file.write_bytes(mutate_bytes(content, chance))
    return files


def judge(file: Path, code: int, words: str) -> None:
    """Fail unless a damaged file was refused with a reason, or answered with probabilities."""
    assert code in (0, 2), f"{file.name}: {code} {words[-500:]}"
    if code == 2:
        assert words.strip(), file.name
        return
    (prediction,) = json.loads(words)["predictions"]
    assert sum(prediction["probabilities"].values()) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("count", [24, pytest.param(120, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("name", "seed"), [("tflite_int8.tflite", 1), ("onnx_int8.onnx", 2)])
def test_a_damaged_engine_answers_with_probabilities_or_is_refused(
    name: str, seed: int, count: int, tmp_path: Path, picture: Path
) -> None:
    files = damage(name, count, seed, tmp_path)
    done = subprocess.run(
        [sys.executable, WORKER, picture, ENGINES / name, *files],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(found) == len(files)
    for file, entry in zip(files, found, strict=True):
        judge(file, entry["code"], entry["words"])
    assert any(entry["code"] == 2 for entry in found)  # the damage reaches the reader


@pytest.mark.parametrize("count", [4, pytest.param(20, marks=pytest.mark.slow)])
def test_a_damaged_keras_model_answers_with_probabilities_or_is_refused(
    count: int, tmp_path: Path, picture: Path
) -> None:
    """In this process, for TensorFlow does not survive a fork; its reader is not native code."""
    for file in damage("keras_float32.keras", count, 3, tmp_path):
        call = call_lesiontk("predict", file, picture, "--json", workspace=tmp_path / "w")
        judge(file, call.code, call.out if call.code == 0 else call.err)
