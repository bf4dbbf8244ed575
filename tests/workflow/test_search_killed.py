"""A search that is killed in training, validation and timing ends as if it had not been."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.workflow.small_space import SPACE


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
