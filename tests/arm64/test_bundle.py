"""The linux-arm64 bundles of the published engines, executed by an ARM64 Python under emulation.

`make test-arm64` sets that Python up and runs all; `make test-arm64-short`, as `.ci/run` does, an
engine of each kind of network for each runtime, on fewer pictures. It proves answers, not speed.
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

from lesiontk.backends import BACKENDS
from lesiontk.data.synthetic.dataset import render_view
from lesiontk.data.tasks import load_task
from lesiontk.deploy import find_bundle_target
from lesiontk.recipe import read_recipe
from lesiontk.stages.bundle import write_bundle_of_file
from tests.arm64.agreement import explain_difference, probability_limit

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
SHORT = {
    "cnn_7class": "plain convolutions",
    "efficientnet_lite0_7class": "depthwise convolutions",
    "inceptionv2_binary": "branches and average pools",
    "resnet152v2_7class": "deep and residual",
}
"""One network of each kind. VGG16 is plain, too, and takes longer than all others."""
PICTURES = 50
EVERY = 4
"""Of these pictures one in a short run; among them is the tie of ResNet152V2."""

pytestmark = pytest.mark.skipif(
    not (ARM64 / "site").is_dir(), reason="`make test-arm64` sets an ARM64 Python up"
)


def list_cases() -> list[Any]:
    """Return every engine with all pictures, and those of `SHORT` with some."""
    return [
        pytest.param(
            engine,
            every,
            marks=pytest.mark.slow if every == 1 else (),
            id=f"{engine.parent.name}/{engine.stem}{'' if every == 1 else '-short'}",
        )
        for engine in ENGINES
        for every in (1, EVERY)
        if every == 1 or engine.parent.name in SHORT
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


def values(prediction: dict[str, Any]) -> list[float]:
    """Return a prediction's probabilities in the order of its labels."""
    return list(prediction["probabilities"].values())


def read_predictions(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    assert done.returncode == 0, done.stderr
    predictions: list[dict[str, Any]] = json.loads(done.stdout)["predictions"]
    return predictions


def test_every_kind_of_network_is_published_for_both_runtimes() -> None:
    short = {engine for engine in ENGINES if engine.parent.name in SHORT}
    assert len(short) == 2 * len(SHORT)


@pytest.mark.parametrize(("engine", "every"), list_cases())
def test_the_bundle_answers_on_arm64_as_on_this_machine(
    engine: Path, every: int, tmp_path: Path, pictures: list[str]
) -> None:
    pictures = pictures[every - 1 :: every]
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
    assert len(there) == len(here) == len(pictures)
    backend = engine.stem.partition("_")[0]
    logits = BACKENDS.get(backend)().list_quantized_tensors(engine)[-1]
    assert "logits" in logits.tensor
    limit = probability_limit(backend, logits.scale)
    found = {
        name: reason
        for name, mine, theirs in zip(pictures, here, there, strict=True)
        if (reason := explain_difference(values(mine), values(theirs), limit)) is not None
    }
    assert found == {}


def test_a_damaged_bundle_fails_on_arm64(tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    smallest = min(ENGINES, key=lambda path: path.stat().st_size)
    write_bundle_of_file(folder, smallest, find_bundle_target("linux-arm64"))
    contract = json.loads((folder / "bundle.json").read_text())
    contract["preprocessing"]["crop_mode"] = "stretch"
    (folder / "bundle.json").write_text(json.dumps(contract))
    done = call_arm64(str(folder / "run.py"), "self-test", "--json", "--rounds", "0")
    assert done.returncode == 1, done.stderr
    found = json.loads(done.stdout)
    assert found["files"]["damaged"] == ["bundle.json was changed"]
    assert set(found["pictures"]["differ"]) == {"golden/tall.png", "golden/wide.png"}
