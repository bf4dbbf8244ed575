"""Conversions in a second process: the same engines, whatever becomes of it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lesiontk.recipe import override_recipe, read_recipe
from lesiontk.records import Artefact
from lesiontk.store import Store
from lesiontk.workflow import parallel_conversion
from lesiontk.workflow.convert import convert_model
from lesiontk.workflow.parallel_conversion import choose_background_targets, shared_engines
from lesiontk.workflow.plan import plan_recipe
from lesiontk.workflow.train import train_recipe

TARGETS = ("tflite:int8", "onnx:int8")
CHANGES = (
    "data.synthetic.lesions=60",
    "data.synthetic.image_size=32",
    "data.image_size=32",
    "train.epochs=1",
    "calibration.images=8",
    "verify.min_agreement_int8=0",
    "verify.max_mean_drift_int8=1",
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("workspace"), threads=1)


@pytest.fixture(scope="module")
def model(store: Store) -> Artefact:
    return train_recipe(store, override_recipe(read_recipe("demo"), CHANGES))


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> list[subprocess.Popen[str]]:
    """Take every model as large; returns the processes that were started."""
    started: list[subprocess.Popen[str]] = []

    class Recorded(subprocess.Popen[str]):
        def __init__(self, command: list[str], **options: Any) -> None:
            super().__init__(command, **options)
            started.append(self)

    monkeypatch.setattr(parallel_conversion, "LARGE", 0)
    monkeypatch.setattr(parallel_conversion, "count_cores", lambda: 2)
    monkeypatch.setattr(subprocess, "Popen", Recorded)
    return started


def test_a_small_model_is_converted_here(model: Artefact) -> None:
    assert choose_background_targets(model, TARGETS) == ()


def test_the_other_back_ends_go_aside(
    model: Artefact, processes: list[subprocess.Popen[str]]
) -> None:
    targets = ["tflite:float32", "onnx:int8", "tflite:int8", "tensorrt:int8"]
    assert choose_background_targets(model, targets) == ("onnx:int8", "tensorrt:int8")
    assert choose_background_targets(model, ["onnx:int8", "onnx:float32"]) == ()
    assert choose_background_targets(model, []) == ()


def test_one_core_does_one_thing(model: Artefact, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel_conversion, "LARGE", 0)
    monkeypatch.setattr(parallel_conversion, "count_cores", lambda: 1)
    assert choose_background_targets(model, TARGETS) == ()


def test_what_both_need_is_made_first() -> None:
    plan = plan_recipe(override_recipe(read_recipe("demo"), [f"convert={list(TARGETS)}"]))
    assert shared_engines(plan, TARGETS, TARGETS[1:]) == ("engine:tflite:float32",)


def test_it_makes_the_engines_that_one_process_makes(
    store: Store, model: Artefact, processes: list[subprocess.Popen[str]], tmp_path: Path
) -> None:
    alone = Store(shutil.copytree(store.workspace, tmp_path / "alone"), threads=1)
    made = convert_model(store, model, TARGETS)
    (process,) = processes
    assert process.returncode == 0
    expected = convert_model(alone, alone.resolve(model.name), TARGETS, background=False)
    assert {target: engine.content for target, engine in made.items()} == {
        target: engine.content for target, engine in expected.items()
    }


def test_what_it_did_not_make_is_made_here(
    store: Store,
    model: Artefact,
    processes: list[subprocess.Popen[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    made = convert_model(store, model, TARGETS, ["calibration.images=9"])
    (process,) = processes
    assert process.returncode != 0
    assert list(made) == list(TARGETS)
