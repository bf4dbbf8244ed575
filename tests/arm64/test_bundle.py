"""The linux-arm64 bundles of the published engines, executed by an ARM64 Python under emulation.

`make test-arm64` sets that Python up. It proves answers, not speed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from lesiontk.data.sources.synthesis import render_view
from lesiontk.data.tasks import load_task
from lesiontk.deploy import find_bundle_target
from lesiontk.deploy.bundle_stage import write_bundle_of_file
from lesiontk.recipe import read_recipe

ROOT = Path(__file__).parents[2]
ARM64 = Path(os.environ.get("LESIONTK_ARM64", "")).resolve()
FOLDERS = {
    read_recipe(folder.name).model.architecture: folder
    for folder in sorted((ROOT / "benchmarks" / "engines").iterdir(), reverse=True)
}
"""Of each published architecture one: emulation takes minutes for the larger ones."""
ENGINES = [
    folder / name
    for folder in FOLDERS.values()
    for name in ("tflite_int8.tflite", "onnx_int8.onnx")
    if (folder / name).is_file()
]
PICTURES = 50
# A probability is a whole number of 1/256 in most int8 graphs; emulated and real processors may
# round a few elements differently.
TOLERANCE = 2 / 256

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (ARM64 / "site").is_dir(), reason="`make test-arm64` sets an ARM64 Python up"
    ),
]


def call_arm64(*words: str) -> subprocess.CompletedProcess[str]:
    """Run the ARM64 Python as a Cortex-A76 would."""
    root = ARM64 / "root"
    settings = [f"PYTHONHOME={root / 'usr'}", f"PYTHONPATH={ARM64 / 'site'}"]
    return subprocess.run(
        [
            "qemu-aarch64-static",
            *("-cpu", "cortex-a76", "-L", str(root)),
            *(word for setting in settings for word in ("-E", setting)),
            str(root / "usr/bin/python3.11"),
            *words,
        ],
        capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("pictures")
    paths = []
    for number, diagnosis in product(range(8), load_task("seven_class").labels):
        path = folder / f"{diagnosis}_{number}.png"
        Image.fromarray(render_view(diagnosis, 50 + number, 0, 200)[:160]).save(path)
        paths.append(str(path))
    return paths[:PICTURES]


def read_predictions(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    assert done.returncode == 0, done.stderr
    predictions: list[dict[str, Any]] = json.loads(done.stdout)["predictions"]
    return predictions


@pytest.mark.parametrize("engine", ENGINES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_the_bundle_answers_on_arm64_as_on_this_machine(
    engine: Path, tmp_path: Path, pictures: list[str]
) -> None:
    write_bundle_of_file(tmp_path / "bundle", engine, find_bundle_target("linux-arm64"))
    run = str(tmp_path / "bundle" / "run.py")
    done = call_arm64(run, "self-test", "--json", "--rounds", "0")
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert found["machine"] == "aarch64"
    assert found["as_expected"]
    there = read_predictions(call_arm64(run, "predict", "--json", *pictures))
    here = read_predictions(
        subprocess.run(
            [sys.executable, run, "predict", "--json", *pictures],
            capture_output=True, text=True, check=False,
        )
    )  # fmt: skip
    assert len(there) == len(here) == PICTURES
    assert [p["label"] for p in there] == [p["label"] for p in here]
    for mine, theirs in zip(here, there, strict=True):
        assert theirs["probabilities"] == pytest.approx(mine["probabilities"], abs=TOLERANCE)


def test_a_damaged_bundle_fails_on_arm64(tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    write_bundle_of_file(folder, ENGINES[0], find_bundle_target("linux-arm64"))
    contract = json.loads((folder / "bundle.json").read_text())
    contract["preprocessing"]["fit"] = "stretch"
    (folder / "bundle.json").write_text(json.dumps(contract))
    done = call_arm64(str(folder / "run.py"), "self-test", "--json", "--rounds", "0")
    assert done.returncode == 1, done.stderr
    found = json.loads(done.stdout)
    assert found["files"]["damaged"] == ["bundle.json was changed"]
    assert set(found["pictures"]["differ"]) == {"golden/tall.png", "golden/wide.png"}
