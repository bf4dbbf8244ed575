"""A study: the trials of a search in a database, shared by processes and machines.

A trial is run by one process, which holds a lock file of the trial. The lock is released when the
process ends, however it ends: another process then continues the same trial, with the same values.
So no trial is lost, and none is counted twice. The values of a trial depend on the seed, its number
and the trials before it alone.
"""

from __future__ import annotations

import fcntl
import itertools
import json
import os
import socket
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lesiontk.document import Record
from lesiontk.errors import DataError, MissingRequirementError, StorageError, UsageError
from lesiontk.files.hashing import hash_document
from lesiontk.search.criteria import Criteria, Figures, Violation, measure_violation
from lesiontk.search.space import Assignment, Dimension, SearchSpace

if TYPE_CHECKING:
    import optuna

COMPLETE, INFEASIBLE, FAILED = "complete", "infeasible", "failed"
PRUNED, RUNNING, WAITING = "pruned", "running", "waiting"
STATES = (COMPLETE, INFEASIBLE, FAILED, PRUNED, RUNNING, WAITING)
EPOCH_METRICS = ("balanced_accuracy", "accuracy", "macro_auc", "log_loss")
"""Metrics that a training measures after each epoch."""
ATTEMPTS = 3
"""Processes that may end in one step of a trial, as by a lack of memory, before it has failed."""
NEWBORN = timedelta(minutes=1)
"""A trial of a shared database without an owner is that old at least before it is continued."""


@dataclass(frozen=True, slots=True)
class TrialRecord(Record):
    """A trial: its values by key, and what became of it.

    `figures` are those of its engine; `violations` the constraints that this does not meet.
    `reason` says why there is no engine (`failed`, `pruned`). `host` is a machine, by `name_host`.
    """

    number: int
    state: str
    assignment: Mapping[str, Any]
    figures: Figures | None = None
    violations: tuple[Violation, ...] = ()
    reason: str = ""
    host: str = ""
    seconds: float | None = None

    @property
    def is_finished(self) -> bool:
        """Whether it will not change any more."""
        return self.state not in (RUNNING, WAITING)


class Study:
    """The trials of one search. Use `open_study`."""

    def __init__(
        self,
        study: optuna.Study,
        space: SearchSpace,
        criteria: Criteria,
        locks: Path,
        *,
        epochs: int,
        shared: bool,
    ) -> None:
        self._study, self.space, self.criteria = study, space, criteria
        self._locks, self._epochs, self._shared = locks, epochs, shared
        self._host = name_host()

    # ---------------------------------------------------------------- trials

    def next_trial(self, total: int) -> RunningTrial | None:
        """Return a trial to run: one that a dead process left, else a new one.

        None if `total` trials have been made, or every candidate of a finite space. Raises
        `UsageError` if a search in another database has the name, and runs a trial of the number.
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
            if self._is_exhausted(total):
                return None
            made = self._study.ask()
            if made.number - self._count_surplus(made.number) >= total:  # a machine was faster
                made.set_user_attr("surplus", True)
                self._study.tell(made, state=optuna.trial.TrialState.FAIL)
                return None
            lock = _try_lock(self._locks / f"trial-{made.number}")
            if lock is None:
                raise UsageError(
                    f"another search {self.name!r} runs in this workspace, in another database; "
                    "choose another --name, or wait until it has ended."
                )
            return self._begin(made, lock)

    def _is_finished(self, trial: optuna.trial.FrozenTrial) -> bool:
        current = self._study._storage.get_trial(trial._trial_id)
        return bool(current.state.is_finished())

    def _count_surplus(self, number: int) -> int:
        """Return how many trials before that number were made beyond the total."""
        return sum(
            trial.number < number and bool(trial.user_attrs.get("surplus"))
            for trial in self._study.get_trials(deepcopy=False)
        )

    def enqueue_grid(self, total: int) -> None:
        """Add the candidates of a grid that are not in the study, up to `total`."""
        with _hold(self._locks / "study"):
            known = {json.dumps(trial.assignment, sort_keys=True) for trial in self.list_trials()}
            for chosen in itertools.islice(self.space.list_assignments(), total):
                if json.dumps(chosen, sort_keys=True) not in known:
                    labels = {
                        d.key: _label(chosen[d.key]) if d.choices else chosen[d.key]
                        for d in self.space.dimensions
                        if d.key in chosen
                    }
                    self._study.enqueue_trial(labels, user_attrs={"assignment": chosen})

    def _may_continue(self, trial: optuna.trial.FrozenTrial) -> bool:
        host = trial.user_attrs.get("host")
        if host is not None or not self._shared:
            return host in (None, self._host)
        started = trial.datetime_start
        return started is not None and datetime.now() - started > NEWBORN

    def _is_exhausted(self, total: int) -> bool:
        import optuna

        trials = [
            trial
            for trial in self._study.get_trials(deepcopy=False)
            if not trial.user_attrs.get("surplus")
        ]
        waiting: int = sum(trial.state == optuna.trial.TrialState.WAITING for trial in trials)
        if waiting:  # candidates of a grid, of which an earlier process may have wanted more
            return len(trials) - waiting >= total
        if len(trials) >= total or self.space.sampler == "grid":
            return True
        size = self.space.size
        if size is None:
            return False
        tried = {json.dumps(trial.user_attrs.get("assignment"), sort_keys=True) for trial in trials}
        return size <= len(tried)

    def _begin(self, trial: optuna.Trial, lock: int) -> RunningTrial:
        trial.set_user_attr("host", self._host)
        self._study.sampler = make_sampler(self.space, trial.number)
        chosen: dict[str, Any] = {}
        for dimension in self.space.dimensions:
            if self.space.is_active(dimension.key, chosen):
                chosen[dimension.key] = _suggest(trial, dimension)
        trial.set_user_attr("assignment", chosen)
        return RunningTrial(self, trial, chosen, lock)

    @property
    def is_running(self) -> bool:
        """Whether a process runs a trial, or has left one that will be continued."""
        return any(trial.state == RUNNING for trial in self.list_trials())

    def list_trials(self) -> tuple[TrialRecord, ...]:
        """Return every trial, in their order."""
        found = self._study.get_trials(deepcopy=False)
        return tuple(self._record(trial) for trial in found if not trial.user_attrs.get("surplus"))

    def _record(self, trial: optuna.trial.FrozenTrial) -> TrialRecord:
        document = trial.user_attrs.get("figures")
        figures = None if document is None else Figures.from_document(document)
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
            seconds=trial.duration.total_seconds() if trial.duration else None,
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
        with _hold(self._locks / "study"):
            known = self.recall(name)
            if known is None:
                self.remember(name, value)
            elif known != value:
                raise UsageError(
                    f"the search {self._study.study_name!r} was begun with another {what}; its "
                    "candidates could not be compared. Choose another --name."
                )

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
    """A trial of this process, until it is completed, rejected or pruned; `close` gives it up.

    A trial that was given up is running: the next process continues it.
    """

    def __init__(
        self, study: Study, trial: optuna.Trial, assignment: Assignment, lock: int
    ) -> None:
        self._owner, self._trial, self._lock = study, trial, lock
        self.assignment = assignment

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
        study = self._owner._study
        return self._owner._record(study.get_trials(deepcopy=False)[self.number])

    def complete(self, figures: Figures) -> None:
        """Record the engine's figures. Raises `DataError` if a criterion is undefined for it."""
        criteria = self._owner.criteria
        values = [figures.value(name) for name in criteria.objectives]
        violations = {str(gate): measure_violation(gate, figures) for gate in criteria.constraints}
        self._trial.set_user_attr("figures", figures.to_document())
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

    def close(self) -> None:
        """Release the trial."""
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
        storage = _open_storage(url)
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
    return Study(made, space, criteria, locks, epochs=epochs, shared=shared)


def recall_study(url: str, name: str) -> dict[str, Any]:
    """Return the values that `Study.remember` recorded, and the ``space``.

    Raises `UsageError` if the database has no such study.
    """
    optuna = import_optuna()
    storage = _open_storage(url)
    names = optuna.get_all_study_names(storage)
    if name not in names:
        known = f"it has {', '.join(names)}" if names else "it has none"
        raise UsageError(f"no search {name!r} in this database; {known}.")
    recorded: dict[str, Any] = optuna.load_study(study_name=name, storage=storage).user_attrs
    return recorded


def name_host() -> str:
    """Return a name for this machine that says nothing about it."""
    return hash_document([socket.gethostname(), uuid.getnode()])[:8]


def import_optuna() -> Any:
    """Return the package. Raises `MissingRequirementError` with the remedy if it is missing."""
    try:
        import optuna
    except ImportError as error:
        raise MissingRequirementError(
            f"a search needs the package optuna ({error}): pip install 'lesiontk[search]'."
        ) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def make_sampler(space: SearchSpace, number: int) -> optuna.samplers.BaseSampler:
    """Return the sampler of one trial; its seed is of the space and of the trial's number."""
    import numpy as np
    import optuna

    seed = int(np.random.SeedSequence([space.seed, number]).generate_state(1)[0])
    if space.sampler == "tpe":
        return optuna.samplers.TPESampler(seed=seed)
    if space.sampler == "nsga2":
        population = min(max(space.trials // 3, 2), 50)
        return optuna.samplers.NSGAIISampler(seed=seed, population_size=population)
    return optuna.samplers.RandomSampler(seed=seed)  # a grid is enqueued


def make_pruner(space: SearchSpace, epochs: int) -> optuna.pruners.BasePruner:
    """Return the pruner of trainings of up to `epochs` epochs."""
    import optuna

    if space.pruner == "hyperband":
        return optuna.pruners.HyperbandPruner(min_resource=1, max_resource=epochs)
    return optuna.pruners.NopPruner()


def check_pruner(space: SearchSpace, criteria: Criteria) -> None:
    """Raise `UsageError` if the pruner cannot compare trainings by the objective."""
    if space.pruner == "none":
        return
    if len(criteria.objectives) != 1 or criteria.objectives[0] not in EPOCH_METRICS:
        raise UsageError(
            f"the pruner {space.pruner} compares trainings after each epoch, but the objectives "
            f"are {', '.join(criteria.objectives)}; expected one of {', '.join(EPOCH_METRICS)} "
            "alone (others can be constraints), or pruner: none."
        )


@contextmanager
def reaching_database(url: str) -> Iterator[None]:
    """Raise `MissingRequirementError` if the database of a search fails in the body."""
    try:
        yield
    except Exception as error:
        import_optuna()
        from optuna.exceptions import StorageInternalError
        from sqlalchemy.engine import make_url
        from sqlalchemy.exc import SQLAlchemyError

        if not isinstance(error, StorageInternalError | SQLAlchemyError):
            raise
        shown = make_url(url).render_as_string(hide_password=True)
        raise MissingRequirementError(
            f"the database {shown} failed during the search: {_explain(error.__cause__ or error)}. "
            "Check that it runs and that space is left; the same command continues the search."
        ) from error


def _explain(error: BaseException) -> str:
    return str(getattr(error, "orig", None) or error).strip().splitlines()[0].rstrip(".")


def _open_storage(url: str) -> Any:
    from sqlalchemy import event
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError, SQLAlchemyError

    optuna = import_optuna()
    try:
        shown = make_url(url).render_as_string(hide_password=True)
    except ArgumentError as error:
        raise UsageError(
            "the storage is not a database URL; expected one such as "
            "postgresql://USER@HOST/DATABASE or sqlite:////absolute/path.db."
        ) from error
    local = url.startswith("sqlite")
    options = {"connect_args": {"timeout": 120}} if local else {}
    try:
        storage = optuna.storages.RDBStorage(url, engine_kwargs=options)
        if local:
            event.listen(storage.engine, "connect", _write_ahead)
            storage.engine.dispose()  # connections from before
        return storage
    except ImportError as error:
        raise MissingRequirementError(
            f"the database {shown} needs a driver that is not installed ({error}); install it, "
            "such as psycopg2-binary for PostgreSQL or PyMySQL for MySQL."
        ) from error
    except SQLAlchemyError as error:
        raise MissingRequirementError(
            f"the database {shown} cannot be reached: {_explain(error)}. Start it, or correct "
            "--storage."
        ) from error


def _write_ahead(connection: Any, _: Any) -> None:
    """Let SQLite write a log that it need not wait for: a power failure only repeats trials."""
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")


def _identify(space: SearchSpace) -> dict[str, Any]:
    """Return what makes trials comparable: the space without their number."""
    return space.model_dump(mode="json", exclude={"trials"})


def _label(value: Any) -> Any:
    """Return a choice as the database has it: a scalar, or JSON."""
    scalar = value is None or isinstance(value, str | int | float)
    return value if scalar else json.dumps(value, sort_keys=True)


def _suggest(trial: optuna.Trial, dimension: Dimension) -> Any:
    if dimension.choices:
        labels = [_label(value) for value in dimension.choices]
        label = trial.suggest_categorical(dimension.key, labels)
        return dimension.choices[_index(labels, label)]
    low, high, step = dimension.low, dimension.high, dimension.step
    if dimension.integer:
        return trial.suggest_int(
            dimension.key, int(low), int(high), step=int(step or 1), log=dimension.log
        )
    return trial.suggest_float(dimension.key, low, high, step=step, log=dimension.log)


def _index(labels: list[Any], label: Any) -> int:
    """Return the place of a label; ``True`` is not ``1``."""
    return next(i for i, each in enumerate(labels) if type(each) is type(label) and each == label)


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
