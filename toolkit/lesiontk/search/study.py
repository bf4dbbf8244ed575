"""A study: the trials of a search in a database, shared by processes and machines.

A trial is run by one process, which holds a lock file of the trial. The lock is released when the
process ends, however it ends: another process then continues the same trial, with the same values.
Another machine, which does not see the lock, does so when the trial's heartbeats have stopped. So
no trial is lost, and none is counted twice. The values of a trial depend on the seed, its number
and the trials before it alone.
"""

from __future__ import annotations

import fcntl
import itertools
import json
import logging
import os
import socket
import uuid
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from lesiontk.errors import DataError, StorageError, UsageError
from lesiontk.files.hashing import hash_document
from lesiontk.search.criteria import Criteria, Figures, Violation, measure_violation
from lesiontk.search.database import (
    GONE,
    Heartbeat,
    hold_database,
    import_optuna,
    open_storage,
)
from lesiontk.search.result import SearchTask
from lesiontk.search.sampling import (
    check_pruner,
    label_choice,
    make_pruner,
    make_sampler,
    suggest_value,
)
from lesiontk.search.space import SearchSpace, parse_space
from lesiontk.search.trial_record import (
    COMPLETE,
    FAILED,
    INFEASIBLE,
    RUNNING,
    Assignment,
    TrialRecord,
)

if TYPE_CHECKING:
    import optuna
    from sqlalchemy.engine import Engine

logger = logging.getLogger(__name__)

ATTEMPTS = 3
"""Processes that may end in one step of a trial, as by a lack of memory, before it has failed."""
DRAWS = 30
"""Draws of a sampler before a candidate that it has not found is tried."""
NEWBORN = timedelta(minutes=1)
"""A trial of a shared database without an owner is that old at least before it is continued."""


class Study:
    """The trials of one search. Use `open_study`."""

    def __init__(
        self,
        study: optuna.Study,
        space: SearchSpace,
        criteria: Criteria,
        locks: Path,
        engine: Engine,
        *,
        epochs: int,
        shared: bool,
    ) -> None:
        self._study, self.space, self.criteria = study, space, criteria
        self._locks, self._engine = locks, engine
        self._epochs, self._shared = epochs, shared
        self.host = name_host(locks if shared else None)

    # ---------------------------------------------------------------- trials

    def next_trial(self, total: int) -> RunningTrial | None:
        """Return a trial to run: one that a dead process left, else a new one.

        No candidate is tried twice, unless the sampler of an infinite space finds no other in
        `DRAWS` draws. None if `total` trials have been made, or every candidate of a finite space.
        Raises `UsageError` if a search in another database has the name, and runs a trial of the
        number.
        """
        import optuna

        with _hold(self._locks / "study"):
            for trial in self._study.get_trials(deepcopy=False):
                if trial.state == optuna.trial.TrialState.RUNNING and self._may_continue(trial):
                    lock = _try_lock(self._locks / f"trial-{trial.number}")
                    if lock is None:
                        continue
                    if self._is_finished(trial):  # since the list was read
                        os.close(lock)
                        continue
                    return self._begin(optuna.trial.Trial(self._study, trial._trial_id), lock)
            for _ in range(DRAWS):
                drawn = self._draw(total)
                if drawn is None or not self._was_tried(drawn):
                    return drawn
                drawn.drop()
            if self.space.size is not None:  # the sampler insists on what was tried
                self._enqueue(itertools.islice(self._leave_known(self.space.list_assignments()), 1))
            return self._draw(total)

    def _draw(self, total: int) -> RunningTrial | None:
        """Return a new trial; None if `total`, or all candidates, have been made."""
        if self._is_exhausted(total):
            return None
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Heartbeat of storage")  # `RunningTrial` has it
            made = self._study.ask()
        if made.number - self._count_surplus(made.number) >= total:  # a machine was faster
            self._drop(made)
            return None
        lock = _try_lock(self._locks / f"trial-{made.number}")
        if lock is None:
            raise UsageError(
                f"another search {self.name!r} runs in this workspace, in another database; "
                "choose another --name, or wait until it has ended."
            )
        return self._begin(made, lock)

    def _drop(self, trial: optuna.Trial) -> None:
        """End a trial as one that is not of the study."""
        import optuna

        trial.set_user_attr("surplus", True)
        self._study.tell(trial, state=optuna.trial.TrialState.FAIL)

    def _list_own(self) -> list[optuna.trial.FrozenTrial]:
        """Return the trials that were not dropped."""
        found = self._study.get_trials(deepcopy=False)
        return [trial for trial in found if not trial.user_attrs.get("surplus")]

    def _was_tried(self, trial: RunningTrial) -> bool:
        return any(
            known.user_attrs.get("assignment") == trial.assignment and known.number != trial.number
            for known in self._list_own()
        )

    def _leave_known(self, candidates: Iterable[Assignment]) -> Iterator[Assignment]:
        """Yield the candidates that are not in the study."""
        known = {_identify_candidate(trial.user_attrs.get("assignment", {}))
                 for trial in self._list_own()}  # fmt: skip
        yield from (each for each in candidates if _identify_candidate(each) not in known)

    def _enqueue(self, candidates: Iterable[Assignment]) -> None:
        """Let the next trials be these candidates."""
        for chosen in candidates:
            labels = {
                d.key: label_choice(chosen[d.key]) if d.choices else chosen[d.key]
                for d in self.space.dimensions
                if d.key in chosen
            }
            self._study.enqueue_trial(labels, user_attrs={"assignment": chosen})

    def _is_finished(self, trial: optuna.trial.FrozenTrial) -> bool:
        current = self._study._storage.get_trial(trial._trial_id)
        return bool(current.state.is_finished())

    def _count_surplus(self, number: int) -> int:
        """Return how many trials before that number were dropped."""
        return sum(
            trial.number < number and bool(trial.user_attrs.get("surplus"))
            for trial in self._study.get_trials(deepcopy=False)
        )

    def enqueue_grid(self, total: int) -> None:
        """Add the candidates of a grid that are not in the study, up to `total`."""
        with self.hold():
            wanted = itertools.islice(self.space.list_assignments(), total)
            self._enqueue(self._leave_known(wanted))

    def _may_continue(self, trial: optuna.trial.FrozenTrial) -> bool:
        host = trial.user_attrs.get("host")
        if host == self.host or (host is None and not self._shared):
            return True
        if host is None:
            started = trial.datetime_start
            return started is not None and datetime.now() - started > NEWBORN
        # two machines may find so at once: the first that completes the trial counts
        return trial._trial_id in self._study._storage._get_stale_trial_ids(self._study._study_id)

    def _is_exhausted(self, total: int) -> bool:
        import optuna

        trials = self._list_own()
        waiting: int = sum(trial.state == optuna.trial.TrialState.WAITING for trial in trials)
        if waiting:  # candidates of a grid, of which an earlier process may have wanted more
            return len(trials) - waiting >= total
        if len(trials) >= total or self.space.sampler == "grid":
            return True
        size = self.space.size
        if size is None:
            return False
        tried = {_identify_candidate(trial.user_attrs.get("assignment", {})) for trial in trials}
        return size <= len(tried)

    def _begin(self, trial: optuna.Trial, lock: int) -> RunningTrial:
        self._study._storage.record_heartbeat(trial._trial_id)
        trial.set_user_attr("host", self.host)
        self._study.sampler = make_sampler(self.space, trial.number)
        chosen: dict[str, Any] = {}
        for dimension in self.space.dimensions:
            if self.space.is_active(dimension.key, chosen):
                chosen[dimension.key] = suggest_value(trial, dimension)
        trial.set_user_attr("assignment", chosen)
        return RunningTrial(self, trial, chosen, lock)

    @property
    def is_running(self) -> bool:
        """Whether a process runs a trial, or has left one that will be continued."""
        return any(trial.state == RUNNING for trial in self.list_trials())

    def list_trials(self) -> tuple[TrialRecord, ...]:
        """Return every trial, in their order."""
        return tuple(self._record(trial) for trial in self._list_own())

    def _record(self, trial: optuna.trial.FrozenTrial) -> TrialRecord:
        written = trial.user_attrs.get("figures")
        figures = None if written is None else Figures.from_document(json.loads(written))
        state = {"FAIL": FAILED}.get(trial.state.name, trial.state.name.lower())
        violations: tuple[Violation, ...] = ()
        if state == COMPLETE and figures is not None:
            violations = self.criteria.list_violations(figures)
            state = INFEASIBLE if violations else COMPLETE
        return TrialRecord(
            number=trial.number,
            state=state,
            assignment=trial.user_attrs.get("assignment", {}),
            figures=figures,
            violations=violations,
            reason=trial.user_attrs.get("reason", ""),
            host=trial.user_attrs.get("host", ""),
            seconds=None if trial.duration is None else trial.duration.total_seconds(),
        )

    # ---------------------------------------------------------------- the study itself

    @property
    def id(self) -> str:
        """What distinguishes it from all others, also from one of the same name elsewhere."""
        return str(self.recall("id") or hash_document([self.name, self.recall("space")]))

    @property
    def name(self) -> str:
        """The name of the search."""
        return str(self._study.study_name)

    def remember(self, name: str, value: Any) -> None:
        """Record a plain value of the whole study."""
        self._study.set_user_attr(name, value)

    def recall(self, name: str) -> Any:
        """Return a recorded value, or None."""
        return self._study.user_attrs.get(name)

    def agree(self, name: str, value: Any, what: str) -> None:
        """Record a value that all trials must have. Raises `UsageError` for another one."""
        with self.hold():
            known = self.recall(name)
            if known is None:
                self.remember(name, value)
            elif known != value:
                raise UsageError(
                    f"the search {self._study.study_name!r} was begun with another {what}; its "
                    "candidates could not be compared. Choose another --name."
                )

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Let no other process, also of another machine, change what all trials share."""
        with _hold(self._locks / "study"), hold_database(self._engine):
            yield

    def measure_importance(self) -> dict[str, dict[str, float]]:
        """Return objective -> key -> its share of the variance, of the keys of all trials.

        It is that of fANOVA (Hutter, Hoos and Leyton-Brown 2014); empty where too few trials, or
        equal values, define none.
        """
        import optuna

        found: dict[str, dict[str, float]] = {}
        for place, objective in enumerate(self.criteria.objectives):
            with suppress(RuntimeError, ValueError):  # fewer than two trials, or no variance
                shares = optuna.importance.get_param_importances(
                    self._study,
                    evaluator=optuna.importance.FanovaImportanceEvaluator(seed=self.space.seed),
                    target=lambda trial, place=place: float(trial.values[place]),
                )
                found[objective] = {key: float(share) for key, share in shares.items()}
        return {name: shares for name, shares in found.items() if shares}


class RunningTrial:
    """A trial of this process, in a `with` block, until it is completed, rejected or pruned.

    A trial that is none of these at the end of the block is running: the next process continues it.
    One that another machine continued, and finished, meanwhile ends the block without an error.
    """

    def __init__(
        self, study: Study, trial: optuna.Trial, assignment: Assignment, lock: int
    ) -> None:
        self._owner, self._trial, self._lock = study, trial, lock
        self._heartbeat = Heartbeat(study._study._storage, trial._trial_id)
        self.assignment = assignment

    def __enter__(self) -> RunningTrial:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> bool:
        from optuna.exceptions import UpdateFinishedTrialError

        self.close()
        if isinstance(error, UpdateFinishedTrialError):
            logger.warning(
                "trial %d was finished by another machine, which had not heard of this one for %d "
                "minutes", self.number, GONE // 60,
            )  # fmt: skip
            return True
        return False

    @property
    def number(self) -> int:
        """Its number in the study, from 0."""
        return int(self._trial.number)

    @contextmanager
    def attempt(self, step: str) -> Iterator[None]:
        """Count a process that ends in this step, unless an interrupt or a full disk ended it.

        Raises `DataError` if `ATTEMPTS` have ended in it before.
        """
        before = self._trial.user_attrs.get("attempts", {})
        count = before.get(step, 0)
        if count >= ATTEMPTS:
            raise DataError(
                f"{count} processes ended in the step {step}, as by a lack of memory; expected a "
                "candidate that this machine can make and run."
            )
        self._trial.set_user_attr("attempts", {**before, step: count + 1})
        try:
            yield
        except (KeyboardInterrupt, StorageError):
            self._trial.set_user_attr("attempts", before)
            raise
        self._trial.set_user_attr("attempts", before)

    def report(self, epoch: int, value: float) -> bool:
        """Record a training's score after an epoch, and return whether it falls behind."""
        self._trial.report(value, epoch)
        return bool(self._trial.should_prune())

    def to_record(self) -> TrialRecord:
        """Return what has become of it."""
        storage = self._owner._study._storage
        return self._owner._record(storage.get_trial(self._trial._trial_id))

    def complete(self, figures: Figures) -> None:
        """Record the engine's figures. Raises `DataError` if a criterion is undefined for it."""
        criteria = self._owner.criteria
        values = [figures.value(name) for name in criteria.objectives]
        violations = {str(gate): measure_violation(gate, figures) for gate in criteria.constraints}
        # as text, because Optuna keeps the values of all trials in memory
        self._trial.set_user_attr("figures", json.dumps(figures.to_document()))
        known = self._trial.constraints
        for constraint, excess in violations.items():
            if constraint not in known:
                self._trial.set_constraint(constraint, excess)
        self._owner._study.tell(self._trial, values)
        self.close()

    def reject(self, reason: str) -> None:
        """Record that there is no engine of these values, and why."""
        import optuna

        self._trial.set_user_attr("reason", reason)
        self._owner._study.tell(self._trial, state=optuna.trial.TrialState.FAIL)
        self.close()

    def prune(self, reason: str) -> None:
        """Record that its training fell behind and was ended."""
        import optuna

        self._trial.set_user_attr("reason", reason)
        self._owner._study.tell(self._trial, state=optuna.trial.TrialState.PRUNED)
        self.close()

    def drop(self) -> None:
        """End it as one that is not of the study."""
        self._owner._drop(self._trial)
        self.close()

    def close(self) -> None:
        """Release the trial."""
        self._heartbeat.stop()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def open_study(
    url: str,
    name: str,
    space: SearchSpace,
    criteria: Criteria,
    locks: Path,
    *,
    epochs: int,
) -> Study:
    """Return the study of a name in a database, made now if there is none.

    `locks` is a folder of this machine, `epochs` the longest training. Raises `UsageError` for a
    study of another space, and `MissingRequirementError` for a database that cannot be reached.
    """
    check_pruner(space, criteria)
    locks.mkdir(parents=True, exist_ok=True)
    lower = [criteria.lower[name] for name in criteria.objectives]
    with _hold(locks / "study"):
        optuna = import_optuna()
        storage = open_storage(url)
        with hold_database(storage.engine):
            made = optuna.create_study(
                storage=storage,
                study_name=name,
                directions=["minimize" if low else "maximize" for low in lower],
                pruner=make_pruner(space, epochs),
                load_if_exists=True,
            )
            known, own = made.user_attrs.get("space"), _identify(space)
            if known is None:
                made.set_user_attr("space", own)
                made.set_user_attr("id", uuid.uuid4().hex)
    if known not in (None, own):
        changed = [key for key in own if (known or {}).get(key) != own[key]]
        raise UsageError(
            f"the search {name!r} was begun with another space ({', '.join(changed)} differ); "
            "expected the same one, in which only `trials` may change. Choose another --name."
        )
    shared = not url.startswith("sqlite")
    return Study(made, space, criteria, locks, storage.engine, epochs=epochs, shared=shared)


@dataclass(frozen=True, slots=True)
class RecordedStudy:
    """What continues a study: its space, its task, and the rule of its thresholds."""

    space: SearchSpace
    task: SearchTask
    rule: str


def recall_study(url: str, name: str) -> RecordedStudy | None:
    """Return what a study in a database recorded of itself; None if it has not begun.

    Raises `UsageError` if the database has no such study.
    """
    optuna = import_optuna()
    storage = open_storage(url)
    names = optuna.get_all_study_names(storage)
    if name not in names:
        known = f"it has {', '.join(names)}" if names else "it has none"
        raise UsageError(f"no search {name!r} in this database; {known}.")
    recorded = optuna.load_study(study_name=name, storage=storage).user_attrs
    if not {"space", "task", "rule", "trials"} <= set(recorded):
        return None
    return RecordedStudy(
        parse_space({**recorded["space"], "trials": recorded["trials"]}),
        SearchTask.from_document(recorded["task"]),
        str(recorded["rule"]),
    )


def name_host(locks: Path | None = None) -> str:
    """Return a name for this machine, or for those on it that see `locks`, that tells nothing."""
    of = [] if locks is None else [str(locks.resolve())]
    return hash_document([socket.gethostname(), uuid.getnode(), *of])[:8]


def _identify(space: SearchSpace) -> dict[str, Any]:
    """Return what makes trials comparable: the space without their number."""
    return space.model_dump(mode="json", exclude={"trials"})


def _identify_candidate(chosen: Assignment) -> str:
    return json.dumps(chosen, sort_keys=True)


def _try_lock(path: Path) -> int | None:
    """Return a descriptor that holds a lock file until it is closed; None if another has it."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


@contextmanager
def _hold(path: Path) -> Iterator[None]:
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
