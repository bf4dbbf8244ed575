"""MLflow as a tracker: everything is a parameter, metric or tag of a run; no file is uploaded."""

from __future__ import annotations

import logging
import os
import re
import time
import warnings
from dataclasses import dataclass, field
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

from lesiontk.errors import MissingRequirementError, UsageError, show_value
from lesiontk.files.folder_lock import hold_folder
from lesiontk.tracking.tracker import State, TrackedRun, Tracker, explain_failure, hide_password

logger = logging.getLogger(__name__)

STORE, ARTIFACTS = "mlflow.db", "mlruns"
EXPERIMENT = "lesiontk"
"""The experiment unless MLFLOW_EXPERIMENT_NAME or MLFLOW_EXPERIMENT_ID says another."""
KEY = "lesiontk.key"
EPOCHS_OF = "lesiontk.epochs_of"
"""Tag of a run with epochs: a metric that each of them has."""
PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}
"""Defaults instead of MLflow's, with which a server that is down holds a training for minutes."""
STATUS = {
    State.RUNNING: "RUNNING",
    State.FINISHED: "FINISHED",
    State.FAILED: "FAILED",
    State.STOPPED: "KILLED",
}
BATCH = 100
"""Entries of a request; MLflow takes no more parameters or tags."""
NAME, VALUE = 250, 6000
"""Longest name and parameter that MLflow takes."""


@dataclass
class _Entries:
    """Entries of a run by their names in MLflow."""

    tags: dict[str, str] = field(default_factory=dict)
    params: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)


@dataclass(kw_only=True)
class _Recorded(_Entries):
    """What the store has of a run."""

    id: str
    status: str
    epochs: set[int] = field(default_factory=set)


class MlflowTracker(Tracker):
    """Records in the store that MLFLOW_TRACKING_URI names, by default ``mlflow.db`` in the
    workspace."""

    @classmethod
    def check(cls) -> None:
        """Raise `MissingRequirementError` where MLflow is not installed."""
        if find_spec("mlflow") is None:
            raise MissingRequirementError(
                "the tracker mlflow needs the package mlflow: pip install 'lesiontk[mlflow]'."
            )

    def __init__(self, workspace: Path) -> None:
        mlflow = import_mlflow()
        self._entities = mlflow.entities
        workspace = workspace.resolve()
        local = not mlflow.is_tracking_uri_set()
        uri = f"sqlite:///{workspace / STORE}" if local else mlflow.get_tracking_uri()
        files = (workspace / ARTIFACTS).as_uri() if local else None
        self._runs: dict[str, _Recorded] = {}
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # its database layer uses deprecated options
                if local:
                    make_database(workspace)
                self._client = mlflow.MlflowClient(tracking_uri=uri)
                self._experiment = self._find_experiment(files)
        except UsageError:
            raise
        except Exception as error:
            remedy = "Remove it" if local else "Start it, correct MLFLOW_TRACKING_URI"
            raise MissingRequirementError(
                f"the tracking store {hide_password(uri)} cannot be used: "
                f"{explain_failure(error)}. {remedy}, or leave out --track."
            ) from error

    def _find_experiment(self, files: str | None) -> str:
        """Return the identifier of the experiment, which is made now if it has only a name.

        `files` is where files that others log to it go, None for the server's default.
        """
        given = os.environ.get("MLFLOW_EXPERIMENT_ID")
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT
        found = self._find_by_id(given) if given else self._client.get_experiment_by_name(name)
        if found is None:
            try:
                return str(self._client.create_experiment(name, artifact_location=files))
            except Exception:
                found = self._client.get_experiment_by_name(name)
                if found is None:  # else another process has just made it
                    raise
        if found.lifecycle_stage != "active":
            raise UsageError(
                f"the MLflow experiment {found.name!r} is deleted; restore it, or choose another "
                f"with MLFLOW_EXPERIMENT_{'ID' if given else 'NAME'}."
            )
        return str(found.experiment_id)

    def _find_by_id(self, given: str) -> Any:
        from mlflow.exceptions import MlflowException

        try:
            return self._client.get_experiment(given)
        except MlflowException as error:
            if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                raise
            raise UsageError(
                f"MLFLOW_EXPERIMENT_ID is {show_value(given)}, of which the tracking store has no "
                "experiment; expected the number of one, or MLFLOW_EXPERIMENT_NAME instead."
            ) from error

    def write(self, run: TrackedRun) -> None:
        recorded = self._find(run.key) or self._create(run)
        try:
            self._add(recorded, run)
        except Exception:
            del self._runs[run.key]  # what arrived is not known
            raise

    def _find(self, key: str) -> _Recorded | None:
        if key not in self._runs:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = self._client.search_runs(
                    [self._experiment], f"tags.`{KEY}` = '{key}'", max_results=1
                )
            if found:
                self._runs[key] = self._read(found[0])
        return self._runs.get(key)

    def _read(self, found: Any) -> _Recorded:
        data = found.data
        recorded = _Recorded(
            id=found.info.run_id,
            status=found.info.status,
            params=dict(data.params),
            metrics=dict(data.metrics),
            tags=dict(data.tags),
        )
        if EPOCHS_OF in data.tags:
            history = self._client.get_metric_history(recorded.id, data.tags[EPOCHS_OF])
            recorded.epochs = {int(metric.step) for metric in history}
        return recorded

    def _create(self, run: TrackedRun) -> _Recorded:
        tags = {KEY: run.key}
        if run.parent:
            parent = self._find(run.parent)
            if parent is not None:
                tags["mlflow.parentRunId"] = parent.id
        made = self._client.create_run(
            self._experiment,
            start_time=_milliseconds(run.started),
            tags=tags,
            run_name=run.name,
        )
        self._runs[run.key] = self._read(made)
        return self._runs[run.key]

    def _add(self, recorded: _Recorded, run: TrackedRun) -> None:
        tags = {name_of(name): value for name, value in run.tags.items()}
        params = {name_of(name): value[:VALUE] for name, value in run.params.items()}
        metrics = {name_of(name): value for name, value in run.metrics.items()}
        rows = {n: row for n, row in sorted(run.epochs.items()) if n not in recorded.epochs}
        if rows and EPOCHS_OF not in recorded.tags:
            tags[EPOCHS_OF] = name_of(next(iter(next(iter(rows.values())))))
        new = _Entries(
            {name: value for name, value in tags.items() if recorded.tags.get(name) != value},
            {name: value for name, value in params.items() if name not in recorded.params},
            {name: value for name, value in metrics.items() if recorded.metrics.get(name) != value},
        )
        self._send(recorded.id, new)
        recorded.tags |= new.tags
        recorded.params |= new.params
        recorded.metrics |= new.metrics
        for epoch, row in rows.items():
            self._send(
                recorded.id, _Entries(metrics={name_of(n): v for n, v in row.items()}), epoch
            )
            recorded.epochs.add(epoch)
        status = STATUS[run.state]
        if status != recorded.status:
            if run.state is State.RUNNING:
                self._client.update_run(recorded.id, status)
            else:
                self._client.set_terminated(recorded.id, status, _milliseconds(run.ended))
            recorded.status = status

    def _send(self, run_id: str, new: _Entries, step: int = 0) -> None:
        now = int(time.time() * 1000)
        make = self._entities
        listed = [
            *(("tags", make.RunTag(*pair)) for pair in new.tags.items()),
            *(("params", make.Param(*pair)) for pair in new.params.items()),
            *(("metrics", make.Metric(*pair, now, step)) for pair in new.metrics.items()),
        ]
        rest = iter(listed)
        while part := list(islice(rest, BATCH)):
            kinds = {kind: [e for k, e in part if k == kind] for kind, _ in part}
            self._client.log_batch(run_id, **kinds)


def make_database(workspace: Path) -> None:
    """Make the store of a workspace if it has none; it is whole when it has its name.

    MLflow makes it in many steps, in which two processes disturb each other.
    """
    folder = workspace / ARTIFACTS
    folder.mkdir(parents=True, exist_ok=True)
    with hold_folder(folder, lambda: logger.info("%s: another process is making it", STORE)):
        if not (workspace / STORE).exists():
            new = workspace / f".{STORE}"
            new.unlink(missing_ok=True)  # of a killed process
            import_mlflow().MlflowClient(tracking_uri=f"sqlite:///{new}")
            new.rename(workspace / STORE)


def import_mlflow() -> Any:
    """Return ``mlflow``, quiet and without its telemetry, which must be off before the import.

    Raises `MissingRequirementError` if it is missing.
    """
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"  # where --json has its document
    for name, value in PATIENCE.items():
        os.environ.setdefault(name, value)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import mlflow
            import mlflow.entities
    except ImportError as error:
        raise MissingRequirementError(
            f"MLflow cannot be imported ({error}): pip install 'lesiontk[mlflow]'."
        ) from error
    for logger in ("mlflow", "alembic"):
        logging.getLogger(logger).setLevel(logging.WARNING)
    return mlflow


def name_of(text: str) -> str:
    """Return a name as MLflow takes it: ``recall[mel]`` becomes ``recall_mel``."""
    return re.sub(r"[^\w\-. :/]", "_", text.replace("]", "")).strip("/")[:NAME]


def _milliseconds(seconds: float | None) -> int | None:
    return None if seconds is None else int(seconds * 1000)
