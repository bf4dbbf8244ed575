"""Runs trials of a study whose engines are made up, in processes of their own.

They are forks of one process that has imported this module: each starts in milliseconds.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import tempfile
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
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload([__name__])
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


class StudyProcess:
    """Completes trials, each of which is a line of its output.

    With `killed_at` it kills itself at that call of the database.
    """

    def __init__(
        self, folder: Path, trials: int, *, killed_at: int | None = None, url: str = ""
    ) -> None:
        self._texts = tuple(Path(tempfile.mkstemp(dir=folder)[1]) for _ in range(2))
        self._process = FORKS.Process(
            target=_run_apart, args=(folder, trials, killed_at, url, self._texts)
        )
        self._process.start()

    def wait(self) -> tuple[int, str, str]:
        """Return its exit code, negative for a signal, its output, and what went wrong."""
        self._process.join()
        code = self._process.exitcode
        assert code is not None
        output, errors = (path.read_text() for path in self._texts)
        return code, output, errors


def _run_apart(
    folder: Path, trials: int, killed_at: int | None, url: str, texts: tuple[Path, ...]
) -> None:
    for number, path in enumerate(texts, start=1):
        os.dup2(os.open(path, os.O_WRONLY), number)
    if killed_at is not None:
        kill_at(killed_at)
    run(folder, trials, url)
