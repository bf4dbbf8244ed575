"""Runs trials of a study whose engines are made up, in a process of its own.

``python -m tests.search.study_process FOLDER TRIALS [KILLED_AT [URL]]``.

With KILLED_AT, if it is not negative, the process kills itself at that call of the database. Each
line on standard output is a trial that it completed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna

from lesiontk.search.criteria import Criteria, Figures
from lesiontk.search.space import parse_space
from lesiontk.search.study import Study, open_study
from lesiontk.search.trial_record import Assignment

SPACE = parse_space(
    {
        "vary": {
            "compress": [[], [{"prune": {}}]],
            "compress.prune.keep_macs": {"low": 0.3, "high": 0.9},
            "train.learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
        },
        "objectives": ["balanced_accuracy", "p90_ms"],
        "constraints": ["p90_ms <= 2.5"],
    }
)
ROOT = Path(__file__).parents[2]
LABELS = ("mel", "nv")
WRITES = (
    "create_new_trial",
    "set_trial_param",
    "set_trial_state_values",
    "set_trial_system_attr",
    "set_trial_user_attr",
    "record_heartbeat",
)


def made_up(chosen: Assignment, number: int) -> Figures:
    """Return figures that follow from a candidate's values alone."""
    keep = float(chosen.get("compress.prune.keep_macs", 1.0))
    values = {"balanced_accuracy": 0.6 + 0.1 * keep, "p90_ms": 3 * keep, "size_mb": keep}
    return Figures(f"engine-{keep:.6f}", "model", "validation", values, {}, 20, 10, 100)


def study_of(folder: Path, url: str = "") -> Study:
    """Return the study of a database, by default a file of the folder."""
    criteria = Criteria.parse(SPACE.objectives, SPACE.constraints, "pair", LABELS, LABELS[:1])
    url = url or f"sqlite:///{folder / 'study.db'}"
    return open_study(url, "made-up", SPACE, criteria, folder / "locks", epochs=1)


def kill_at(call: int) -> None:
    """Let this process kill itself before that call that writes to the database."""
    left = call

    def dying(write: Callable[..., Any]) -> Callable[..., Any]:
        def dies(*args: Any, **kwargs: Any) -> Any:
            nonlocal left
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return write(*args, **kwargs)

        return dies

    storage = optuna.storages.RDBStorage
    for name in WRITES:
        setattr(storage, name, dying(getattr(storage, name)))


def run(folder: Path, trials: int, url: str = "") -> list[int]:
    study, done = study_of(folder, url), []
    while (trial := study.next_trial(trials)) is not None:
        trial.complete(made_up(trial.assignment, trial.number))
        done.append(trial.number)
        sys.stdout.write(f"{trial.number}\n")
        sys.stdout.flush()
    return done


def start(folder: Path, *arguments: object) -> subprocess.Popen[str]:
    """Start this module with its arguments."""
    command = [sys.executable, "-m", "tests.search.study_process", str(folder)]
    return subprocess.Popen(
        [*command, *map(str, arguments)], cwd=ROOT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


if __name__ == "__main__":
    place, number, *rest = sys.argv[1:]
    if rest and int(rest[0]) >= 0:
        kill_at(int(rest[0]))
    run(Path(place), int(number), *rest[1:])
