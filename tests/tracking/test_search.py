"""A search is a run with a run of each trial in it: assignment, figures, state, violations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from lesiontk.data.images import open_images
from lesiontk.search.study import Study
from lesiontk.search.trial_record import COMPLETE, FAILED, INFEASIBLE, PRUNED
from lesiontk.store import Store
from lesiontk.tracking import State
from lesiontk.tracking.mlflow_tracker import name_of
from lesiontk.workflow.search import Search, run_search
from lesiontk.workflow.tracked_searches import search_run, trial_run
from lesiontk.workflow.tracking import Tracking
from tests.search.made_up_study import figures, make_study
from tests.tiny.recipe import TINY
from tests.tracking.conftest import Place
from tests.tracking.database import dump


def make_trials(study: Study) -> None:
    """Run four trials: complete, infeasible, failed and pruned."""
    for number, size in enumerate((1.0, 9.0)):
        trial = study.next_trial(4)
        assert trial is not None
        trial.complete(figures(balanced_accuracy=0.6 + number / 10, size_mb=size))
    for end in ("reject", "prune"):
        trial = study.next_trial(4)
        assert trial is not None
        getattr(trial, end)("ISIC_0024306 in /home/someone")


def test_a_trial_has_its_state_figures_and_violations(tmp_path: Path) -> None:
    study = make_study(
        tmp_path, constraints=["size_mb <= 2"], vary={"train.seed": {"low": 1, "high": 99}}
    )
    make_trials(study)
    complete, infeasible, failed, pruned = (trial_run(study, t) for t in study.list_trials())
    states = [run.tags["lesiontk.state"] for run in (complete, infeasible, failed, pruned)]
    assert states == [COMPLETE, INFEASIBLE, FAILED, PRUNED]
    assert [run.state for run in (complete, infeasible, failed, pruned)] == [
        State.FINISHED, State.FINISHED, State.FAILED, State.STOPPED,
    ]  # fmt: skip
    assert complete.metrics["balanced_accuracy"] == 0.6
    assert complete.tags["lesiontk.engine"] == "engine-1"
    assert infeasible.tags["lesiontk.violation.1"] == "size_mb <= 2: 9, limit 2"
    assert set(failed.params) == {"train.seed"}
    whole = search_run(study, study.space, study.list_trials())
    assert whole.metrics == {f"trials/{state}": 1 for state in states}
    assert {run.parent for run in (complete, infeasible, failed, pruned)} == {whole.key}
    for run in (complete, infeasible, failed, pruned, whole):
        assert "ISIC" not in str(run)
        assert "someone" not in str(run)


def test_searches_of_one_name_are_two(tmp_path: Path) -> None:
    keys = set()
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        for _ in range(2):  # opened again it is the same one
            study = make_study(tmp_path / folder)
            keys.add(search_run(study, study.space).key)
    assert len(keys) == 2


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("search")
    (folder / "tiny.yaml").write_text(yaml.safe_dump({**json.loads(json.dumps(TINY)), "gate": []}))
    document: dict[str, Any] = {
        "recipe": str(folder / "tiny.yaml"),
        "vary": {"target": ["tflite:float32", "tflite:float16"]},
        "set": {"evaluate.resamples": 100, "bench.rounds": 20, "bench.repeats": 0},
        "objectives": ["balanced_accuracy", "size_mb"],
        "constraints": ["size_mb <= 0.07"],
        "sampler": "grid",
    }
    file = folder / "space.yaml"
    file.write_text(yaml.safe_dump(document))
    return file


@pytest.fixture(scope="module")
def finished(tiny_store: Store, space: Path) -> Search:
    return run_search(tiny_store, space)


def test_a_search_is_recorded_once_and_nothing_else(
    finished: Search, space: Path, tiny_store: Store, place: Place
) -> None:
    for _ in range(2):
        observer = Tracking("mlflow", place.workspace)
        run_search(Store(tiny_store.workspace, observer=observer), space)
        assert observer.missing == ()
    (whole,) = place.runs(kind="search")
    trials = {run.data.params["target"]: run for run in place.runs(kind="trial")}
    assert whole.info.status == "FINISHED"
    assert len(place.runs(kind="trial")) == 2
    for trial in finished.study.list_trials():
        run = trials[trial.assignment["target"]]
        assert run.data.tags["mlflow.parentRunId"] == whole.info.run_id
        assert trial.figures is not None
        for name, value in trial.figures.values.items():
            assert run.data.metrics[name_of(name)] == value
            assert len(place.history(run, name_of(name))) == 1
    assert "lesiontk.violation.1" in trials["tflite:float32"].data.tags
    assert whole.data.metrics == {"trials/complete": 1, "trials/infeasible": 1}
    text = dump(place.database)
    (prepared,) = tiny_store.list_artefacts("images")
    for secret in (*open_images(prepared).image_ids, str(space.parent), str(tiny_store.workspace)):
        assert secret not in text, secret
