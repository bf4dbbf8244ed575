"""What a tracker gets of a search and of its trials: assignments, figures, states."""

from __future__ import annotations

from lesiontk.files.hashing import hash_document
from lesiontk.search.result import count_states
from lesiontk.search.space import SearchSpace
from lesiontk.search.study import Study
from lesiontk.search.trial_record import FAILED, PRUNED, TrialRecord
from lesiontk.store import Store
from lesiontk.tracking import State, TrackedRun
from lesiontk.workflow.tracked_runs import flatten, own_tags


def search_run(
    study: Study, space: SearchSpace, trials: tuple[TrialRecord, ...] = ()
) -> TrackedRun:
    """Return the run of a search, the parent of its trials; with `trials`, all of them, it is
    finished."""
    document = space.model_dump(mode="json", exclude={"trials"})
    return TrackedRun(
        key=hash_document(["search", study.id]),
        name=f"search {study.name}",
        state=State.FINISHED if trials else State.RUNNING,
        params=flatten(document),
        metrics={f"trials/{state}": n for state, n in count_states(trials).items()},
        tags=own_tags({"kind": "search", "search": study.name}),
    )


def trial_run(study: Study, trial: TrialRecord) -> TrackedRun:
    """Return the run of a finished trial."""
    tags = {"kind": "trial", "search": study.name, "state": trial.state}
    metrics: dict[str, float] = {}
    if trial.figures is not None:
        tags |= {"engine": trial.figures.engine, "model": trial.figures.model}
        metrics = {
            **trial.figures.values,
            **{f"parent/{metric}": value for metric, value in trial.figures.parent.items()},
            "validation_images": trial.figures.images,
            "validation_lesions": trial.figures.lesions,
            "timings": trial.figures.timings,
        }
    for number, violation in enumerate(trial.violations, start=1):
        tags[f"violation.{number}"] = (
            f"{violation.constraint}: {violation.measured:.6g}, limit {violation.limit:.6g}"
        )
    return TrackedRun(
        key=hash_document(["trial", study.id, trial.number]),
        name=f"{study.name} trial {trial.number}",
        state={FAILED: State.FAILED, PRUNED: State.STOPPED}.get(trial.state, State.FINISHED),
        params=flatten(trial.assignment),
        metrics=metrics,
        tags=own_tags(tags),
        parent=hash_document(["search", study.id]),
    )


def record_runs(store: Store, *runs: TrackedRun) -> None:
    """Pass runs to the tracker of a store; another process may have the same ones."""
    with store.hold("tracking"):
        for run in runs:
            store.observer.record(run)
