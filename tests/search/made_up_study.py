"""A study without candidates: its trials are completed with made-up figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lesiontk.search.criteria import Criteria, Figures
from lesiontk.search.space import parse_space
from lesiontk.search.study import RunningTrial, Study, open_study
from tests.search.study_process import LABELS


def make_study(folder: Path, **changes: Any) -> Study:
    """Return a study of other observers, with other keys of the space."""
    document = {"vary": {"calibration.observer": ["min_max", "percentile"]}, **changes}
    space = parse_space(document)
    criteria = Criteria.parse(space.objectives, space.constraints, "pair", LABELS, LABELS[:1])
    url = f"sqlite:///{folder / 'study.db'}"
    return open_study(url, "made-up", space, criteria, folder / "locks", epochs=9)


def finish_twice(gone: RunningTrial, here: Study) -> None:
    """Let `here` continue and finish a trial of a machine that was only cut off, and comes back."""
    with gone:
        continued = here.next_trial(1)
        assert continued is not None
        assert continued.assignment == gone.assignment
        with continued:
            continued.complete(figures())
        gone.complete(figures(balanced_accuracy=0.5))
    (trial,) = here.list_trials()
    assert trial.figures == figures()


def figures(**values: float) -> Figures:
    known = {"balanced_accuracy": 0.7, "p90_ms": 1.0, "size_mb": 1.0, **values}
    return Figures("engine-1", "model-1", "validation-1", known, {}, 20, 10, 100)
