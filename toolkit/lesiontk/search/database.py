"""The database of a search: a file of the workspace, or a server that several machines share."""

from __future__ import annotations

import threading
import warnings
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lesiontk.errors import MissingRequirementError, UsageError, suggest

if TYPE_CHECKING:
    from sqlalchemy.engine import URL, Engine

HEARTBEAT, GONE = 60, 600
"""Seconds between the heartbeats of a trial, and without one until its machine counts as gone."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """How the databases of one kind are opened.

    `driver` is that of the package's `extra`. Each connection executes the statements `session`.
    `lock` waits until no other connection has executed it; the end of the connection releases it.
    """

    driver: str
    session: tuple[str, ...]
    extra: str = ""
    lock: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)


DIALECTS = {
    "sqlite": Dialect(
        "pysqlite",
        # a log that need not be waited for: a power failure only repeats trials
        ("PRAGMA journal_mode=WAL", "PRAGMA synchronous=NORMAL"),
        options={"connect_args": {"timeout": 120}},
    ),
    "postgresql": Dialect(
        "psycopg",
        # heartbeats have no time zone: those of all machines are compared
        ("SET TIME ZONE 'UTC'",),
        extra="postgresql",
        lock="SELECT pg_advisory_lock(hashtext('lesiontk'))",
        options={"pool_pre_ping": True},  # a server may restart during a training
    ),
    "mysql": Dialect(
        "pymysql",
        # strict: a text that is too long is an error, and is not cut
        ("SET time_zone='+00:00', sql_mode=CONCAT(@@sql_mode, ',STRICT_ALL_TABLES')",),
        extra="mysql",
        lock="SELECT GET_LOCK('lesiontk', 31536000)",
        # the default level of MariaDB 11.6 and later fails where two machines write to one trial
        options={"pool_pre_ping": True, "isolation_level": "READ COMMITTED"},
    ),
}
"""By the scheme of a URL; other databases are opened as they are."""
SAME_AS = {"mariadb": "mysql"}  # Optuna knows this name alone
FORM = (
    "expected one such as postgresql://USER@HOST/DATABASE, mysql://USER@HOST/DATABASE or "
    "sqlite:////absolute/path.db"
)


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
        from sqlalchemy.exc import SQLAlchemyError

        if not isinstance(error, StorageInternalError | SQLAlchemyError):
            raise
        raise MissingRequirementError(
            f"the database {_show(_parse_url(url))} failed during the search: "
            f"{_explain(error.__cause__ or error)}. "
            "Check that it runs and that space is left; the same command continues the search."
        ) from error


def _parse_url(text: str) -> URL:
    """Return a URL with the driver of its extra. Raises `UsageError` for what is none."""
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        url = make_url(text)
    except (ArgumentError, ValueError):  # the latter for a port, and quotes a part of the password
        url = None
    if url is None or "@" in (url.host or ""):
        raise UsageError(
            f"the storage is not a database URL; {FORM}, with %40 for an @ in a password, %3A for "
            "a : and %2F for a /."
        ) from None
    scheme, plus, driver = url.drivername.partition("+")
    scheme = SAME_AS.get(scheme, scheme)
    if not plus and scheme in DIALECTS:
        driver = DIALECTS[scheme].driver
    if scheme == "mysql" and not url.database:
        raise UsageError(f"the storage names no database; {FORM}.")
    return url.set(drivername=f"{scheme}+{driver}" if driver else scheme)


def _show(url: URL) -> str:
    """Return a URL without its password, which may be in the query, too."""
    plain: URL = url.set(drivername=url.get_backend_name(), query={})
    return str(plain.render_as_string(hide_password=True))


def _explain(error: BaseException) -> str:
    """Return the database's reason in one line."""
    cause = getattr(error, "orig", None) or error
    reason = str(cause.args[-1] if cause.args else cause)  # PyMySQL's first one is a number
    return reason.strip().splitlines()[0].rstrip(".")


def open_storage(url: str) -> Any:
    """Return the storage of a database URL.

    Raises `UsageError` for what is no URL, and `MissingRequirementError` without its driver, or if
    it cannot be reached; no message has the password.
    """
    from sqlalchemy import create_engine, event
    from sqlalchemy.exc import NoSuchModuleError, SQLAlchemyError
    from sqlalchemy.pool import NullPool

    optuna = import_optuna()
    address = _parse_url(url)
    shown = _show(address)
    dialect = DIALECTS.get(address.get_backend_name(), Dialect("", ()))
    try:
        with (
            hold_database(create_engine(address, poolclass=NullPool)),  # the tables are made once
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # heartbeats
            storage = optuna.storages.RDBStorage(
                address.render_as_string(hide_password=False),
                engine_kwargs=dict(dialect.options),
                heartbeat_interval=HEARTBEAT,
                grace_period=GONE,
            )
        weakref.finalize(storage, storage.engine.dispose)  # the server is told of the end
        if dialect.session:
            event.listen(storage.engine, "connect", _prepare(dialect.session))
            storage.engine.dispose()  # connections from before
        return storage
    except ImportError as error:
        own = dialect.extra and address.get_driver_name() == dialect.driver
        package = f"'lesiontk[{dialect.extra}]'" if own else "its package"
        raise MissingRequirementError(
            f"the database {shown} needs a driver that is not installed ({error}): pip install "
            f"{package}."
        ) from error
    except NoSuchModuleError as error:
        kind = address.drivername
        raise UsageError(
            f"the storage has the unknown kind {kind}; {FORM}.{suggest(kind, DIALECTS)}"
        ) from error
    except TypeError as error:  # PyMySQL's, for an option of the URL
        if not address.query:
            raise
        raise UsageError(
            f"the options {', '.join(address.query)} of the database {shown} are not those of its "
            f"driver: {_explain(error)}."
        ) from error
    except SQLAlchemyError as error:
        raise MissingRequirementError(
            f"the database {shown} cannot be reached: {_explain(error)}. Start it, or correct "
            "--storage."
        ) from error


def _prepare(statements: tuple[str, ...]) -> Callable[[Any, Any], None]:
    """Return what executes the statements in a new connection."""

    def execute(connection: Any, _: Any) -> None:
        cursor = connection.cursor()
        for statement in statements:
            cursor.execute(statement)
        cursor.close()
        connection.commit()  # a rollback would undo them

    return execute


@contextmanager
def hold_database(engine: Engine) -> Iterator[None]:
    """Let one process of all machines at a time run the body, if the database has such a lock."""
    dialect = DIALECTS.get(engine.url.get_backend_name())
    if dialect is None or not dialect.lock:
        yield
        return
    with engine.connect() as connection:
        connection.detach()  # it is closed at the end, which releases the lock
        connection.exec_driver_sql(dialect.lock)
        yield


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
