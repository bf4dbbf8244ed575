"""Searches, recipes and folds on workers of Ray that the command starts, from synthetic images."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from lesiontk.store import Store
from tests.workflow.ray_here import worker_environment
from tests.workflow.small_space import SPACE

pytestmark = pytest.mark.slow


def call(*arguments: object) -> Any:
    """Run a command, and return its document; nothing but that is on standard output."""
    command = [sys.executable, "-W", "ignore", "-m", "lesiontk", *map(str, arguments), "--json"]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=worker_environment()
    )
    assert done.returncode in (0, 1), done.stderr
    assert "Ray: 2 at once" in done.stderr or "--workers" not in arguments
    return json.loads(done.stdout)


RAY = ("--workers", "ray", "--parallel", 2)


def test_a_search_with_two_workers_has_the_front_of_one_process(tmp_path: Path) -> None:
    """Trained networks differ in their last bits between numbers of threads; sizes do not."""
    file = tmp_path / "space.yaml"
    file.write_text(yaml.safe_dump({**SPACE, "objectives": ["size_mb"]}))
    found = [
        call("search", file, "--workspace", tmp_path / name, *options)
        for name, options in (("one", ()), ("two", RAY))
    ]
    for result in found:
        assert {trial["state"] for trial in result["trials"]} == {"complete"}
    assert found[0]["front"] == found[1]["front"]
    sizes = [[trial["figures"]["values"]["size_mb"] for trial in each["trials"]] for each in found]
    assert sizes[0] == pytest.approx(sizes[1], abs=0.001)


def test_folds_and_recipes_on_two_workers(tmp_path: Path) -> None:
    settings = [f"--set={key}={json.dumps(value)}" for key, value in SPACE["set"].items()]
    settings += [
        "--set=calibration.images=16",
        '--set=convert=["keras:float32", "tflite:int8"]',
        "--set=explain.images=0",
    ]
    workspace = tmp_path / "workspace"
    folds = call("run", "cnn_7class", "--folds", 2, *settings, "--workspace", workspace, *RAY)
    assert len(folds["folds"]) == 2
    both = tmp_path / "other.yaml"
    recipe = call("recipe", "show", "cnn_7class")
    both.write_text(yaml.safe_dump({**recipe, "name": "other"}))
    runs = call("run", "cnn_7class", both, *settings, "--workspace", workspace, *RAY)
    assert [run["recipe"] for run in runs] == ["cnn_7class", "other"]
    assert runs[0]["artefacts"]["model"] == runs[1]["artefacts"]["model"]
    assert not Store(workspace).failures()
