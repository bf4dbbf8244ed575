"""Database servers of their own, each in a temporary folder, reached by a socket alone."""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import pytest
import sqlalchemy

from lesiontk.search.database import DIALECTS

PASSWORD, QUOTED = "s{e}c%r@t/", "s%7Be%7Dc%25r%40t%2F"


class DatabaseServer(ABC):
    """A server and the databases in it. Use `running`."""

    url: ClassVar[str]
    """With the fields ``{database}`` and ``{folder}``."""
    far_time_zone: ClassVar[str]
    """What lets the sessions that begin after it have another time zone."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.user = "nobody" if os.getuid() == 0 else None  # the servers do not run as root
        self._numbers = itertools.count()

    @classmethod
    @contextmanager
    def running(cls) -> Iterator[DatabaseServer]:
        """Yield a server, or skip where none is installed."""
        cls.find_programs()
        with tempfile.TemporaryDirectory(prefix="db") as name:  # a socket's path is short
            server = cls(Path(name))
            if server.user is not None:
                os.chown(name, pwd.getpwnam(server.user).pw_uid, -1)
            server.initialize()
            server.start()
            try:
                yield server
            finally:
                server.stop()

    @classmethod
    @abstractmethod
    def find_programs(cls) -> Path:
        """Return the folder of its programs, or skip."""

    @abstractmethod
    def initialize(self) -> None:
        """Make its data, with the user ``study``."""

    @abstractmethod
    def start(self) -> None:
        """Start it, and wait until it accepts connections."""

    @abstractmethod
    def stop(self) -> None:
        """End it at once."""

    def url_of(self, database: str) -> str:
        """Return the URL of a database, with the password."""
        return self.url.format(database=database, folder=self.folder)

    def create_database(self) -> str:
        """Return the URL of a new database."""
        name = f"search{next(self._numbers)}"
        self.execute(f"CREATE DATABASE {name}")
        return self.url_of(name)

    def execute(self, statement: str, url: str = "") -> str:
        """Execute a statement, by default in the server's database; return the first value."""
        chosen = sqlalchemy.make_url(url or self.url_of(self.own_database))
        driver = DIALECTS[chosen.get_backend_name()].driver
        chosen = chosen.set(drivername=f"{chosen.get_backend_name()}+{driver}")
        engine = sqlalchemy.create_engine(chosen, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            found = connection.exec_driver_sql(statement)
            value = str(found.scalar()) if found.returns_rows else ""
        engine.dispose()
        return value

    own_database: ClassVar[str]

    def _call(self, *command: object) -> None:
        done = subprocess.run(
            [*map(str, command)], user=self.user, capture_output=True, text=True, check=False,
            cwd=self.folder,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr


class PostgreSQL(DatabaseServer):
    """A server of PostgreSQL."""

    url = f"postgresql://study:{QUOTED}@/{{database}}?host={{folder}}"
    own_database = "postgres"
    far_time_zone = "ALTER ROLE study SET timezone = 'Asia/Tokyo'"

    @classmethod
    def find_programs(cls) -> Path:
        pytest.importorskip("psycopg")
        known = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
        found = shutil.which("initdb") or (known[-1] if known else None)
        if found is None:
            pytest.skip("PostgreSQL's initdb is not installed")
        return Path(found).resolve().parent

    def initialize(self) -> None:
        secret = self.folder / "password"
        secret.write_text(PASSWORD)
        self._control("initdb", "--username", "study", "--auth", "scram-sha-256",
                      "--pwfile", secret, "--no-sync")  # fmt: skip

    def start(self) -> None:
        settings = f"-k {self.folder} -c listen_addresses=''"
        self._control("pg_ctl", "start", "--wait", "-o", settings, "-l", self.folder / "log")

    def stop(self) -> None:
        self._control("pg_ctl", "stop", "--wait", "-m", "immediate")

    def _control(self, program: str, *arguments: object) -> None:
        self._call(self.find_programs() / program, "-D", self.folder / "data", *arguments)


class MariaDB(DatabaseServer):
    """A server of MariaDB, which is reached like MySQL."""

    url = f"mysql://study:{QUOTED}@/{{database}}?unix_socket={{folder}}/socket"
    own_database = "mysql"
    far_time_zone = "SET GLOBAL time_zone = '+09:00'"
    _process: subprocess.Popen[bytes]

    @classmethod
    def find_programs(cls) -> Path:
        pytest.importorskip("pymysql")
        found = shutil.which("mariadbd", path=f"{os.environ['PATH']}:/usr/sbin")
        if found is None or shutil.which("mariadb-install-db") is None:
            pytest.skip("MariaDB's mariadbd and mariadb-install-db are not installed")
        return Path(found).parent

    def initialize(self) -> None:
        self._call("mariadb-install-db", "--no-defaults", f"--datadir={self.folder}/data",
                   "--auth-root-authentication-method=normal", "--skip-test-db")  # fmt: skip
        (self.folder / "users.sql").write_text(
            f"CREATE OR REPLACE USER study@localhost IDENTIFIED BY '{PASSWORD}';\n"
            "GRANT ALL ON *.* TO study@localhost;\n"
        )

    def start(self) -> None:
        folder = self.folder
        with (folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [
                    self.find_programs() / "mariadbd", "--no-defaults", "--skip-networking",
                    f"--datadir={folder}/data", f"--socket={folder}/socket",
                    f"--pid-file={folder}/pid", f"--init-file={folder}/users.sql",
                    # as MariaDB 11.6 and later, and a server of old settings
                    "--loose-innodb-snapshot-isolation=ON", "--sql-mode=",
                ],
                user=self.user, stdout=log, stderr=log,
            )  # fmt: skip
        limit = time.monotonic() + 60
        while "ready for connections" not in (said := (folder / "log").read_text()):
            assert self._process.poll() is None, said
            assert time.monotonic() < limit, said
            time.sleep(0.05)

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()


SERVERS: dict[str, type[DatabaseServer]] = {"postgresql": PostgreSQL, "mysql": MariaDB}
