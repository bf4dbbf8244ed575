"""A search that is killed in training, validation and timing ends as if it had not been."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

SPACE: dict[str, Any] = {
    "recipe": "cnn_7class",
    "set": {
        "data.source": "synthetic",
        "data.image_size": 32,
        "data.synthetic": {"lesions": 84, "image_size": 48, "seed": 3},
        "train.epochs": 3,
        "calibration.images": 32,
        "calibration.list": None,
        "evaluate.resamples": 100,
        "bench.rounds": 5,
        "bench.repeats": 0,
        "verify.min_agreement_int8": 0.0,
        "verify.max_mean_drift_int8": 1.0,
    },
    "vary": {"target": ["tflite:int8", "tflite:float16"]},
    "objectives": ["balanced_accuracy", "p90_ms"],
    "sampler": "grid",
}


def run_until(command: list[str], end: str | None) -> tuple[int, list[str]]:
    """Run a command, and kill it with a signal that it cannot catch at a line with `end`."""
    process = subprocess.Popen(
        command, text=True, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line)
        if end is not None and end in line:
            os.killpg(process.pid, signal.SIGKILL)
            break
    process.communicate()
    return process.returncode, lines


@pytest.mark.slow
def test_a_killed_search_ends_as_if_it_had_not_been_killed(tmp_path: Path) -> None:
    file = tmp_path / "space.yaml"
    file.write_text(yaml.safe_dump(SPACE))
    workspace = tmp_path / "workspace"
    command = [sys.executable, "-W", "ignore", "-m", "lesiontk", "search", str(file),
               "--workspace", str(workspace)]  # fmt: skip
    log: list[str] = []
    for end in ("epoch 1:", "stage convert", "stage validate", "stage time", "trial 1, of"):
        code, lines = run_until(command, end)
        assert code == -signal.SIGKILL
        log += lines
    code, lines = run_until(command, None)
    assert code == 0, "".join(lines)
    log += lines
    result = json.loads((workspace / "searches" / "space" / "search.json").read_text())
    assert [(t["number"], t["state"]) for t in result["trials"]] == [
        (0, "complete"),
        (1, "complete"),
    ]
    assert result["candidates"] == 2
    assert len(result["readings"]) == 1
    for epoch in (1, 2, 3):
        assert sum(f"epoch {epoch}: loss" in line for line in log) == 1
