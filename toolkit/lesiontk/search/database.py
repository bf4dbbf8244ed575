"""The database of a search: a file of the workspace, or a server that several machines share."""

from __future__ import annotations

import threading
import warnings
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from lesiontk.errors import MissingRequirementError, UsageError

HEARTBEAT, GONE = 60, 600
"""Seconds between the heartbeats of a trial, and without one until its machine counts as gone."""


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


def open_storage(url: str) -> Any:
    """Return the storage of a database URL.

    Raises `UsageError` for what is no URL, and `MissingRequirementError` without its driver, or if
    it cannot be reached; no message has the password.
    """
    from sqlalchemy import event
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError, SQLAlchemyError

    optuna = import_optuna()
    try:
        address = make_url(url)
        shown = address.render_as_string(hide_password=True)
        if address.drivername == "postgresql":
            address = address.set(drivername="postgresql+psycopg")  # the extra's
    except ArgumentError as error:
        raise UsageError(
            "the storage is not a database URL; expected one such as "
            "postgresql://USER@HOST/DATABASE or sqlite:////absolute/path.db."
        ) from error
    local = url.startswith("sqlite")
    options = {"connect_args": {"timeout": 120}} if local else {}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # heartbeats
            storage = optuna.storages.RDBStorage(
                address.render_as_string(hide_password=False),
                engine_kwargs=options,
                heartbeat_interval=HEARTBEAT,
                grace_period=GONE,
            )
        weakref.finalize(storage, storage.engine.dispose)  # the server is told of the end
        if local:
            event.listen(storage.engine, "connect", _write_ahead)
            storage.engine.dispose()  # connections from before
        return storage
    except ImportError as error:
        raise MissingRequirementError(
            f"the database {shown} needs a driver that is not installed ({error}): pip "
            "install 'lesiontk[postgresql]', or for MySQL PyMySQL and mysql+pymysql://…"
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


class Heartbeat:
    """Records in the database that this process runs a trial, until `stop`."""

    def __init__(self, storage: Any, trial_id: int) -> None:
        self._storage, self._trial_id = storage, trial_id
        self._stopped = threading.Event()
        threading.Thread(target=self._beat, daemon=True).start()

    def _beat(self) -> None:
        from optuna.exceptions import StorageInternalError

        while not self._stopped.wait(HEARTBEAT):
            with suppress(StorageInternalError):  # the database may be back before it matters
                self._storage.record_heartbeat(self._trial_id)

    def stop(self) -> None:
        """End it."""
        self._stopped.set()
