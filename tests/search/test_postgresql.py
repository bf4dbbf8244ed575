"""Trials in a real PostgreSQL server, which processes of several workspaces share."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from lesiontk.search import study as study_module
from tests.search.study_process import run, start, study_of

TRIALS = 8


def find_programs() -> Path:
    """Return the folder of PostgreSQL's programs, or skip."""
    pytest.importorskip("psycopg")
    known = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    found = shutil.which("initdb") or (known[-1] if known else None)
    if found is None:
        pytest.skip("PostgreSQL's initdb is not installed")
    return Path(found).resolve().parent


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The URL of a database in a server of its own, which listens to a socket alone."""
    programs = find_programs()
    # a socket's path is short; the server does not run as root
    with tempfile.TemporaryDirectory(prefix="pg") as name:
        user = None
        if os.getuid() == 0:
            user = "nobody"
            os.chown(name, pwd.getpwnam(user).pw_uid, -1)
        data, settings = Path(name) / "data", f"-k {name} -c listen_addresses=''"

        def call(program: str, *arguments: str) -> None:
            done = subprocess.run(
                [programs / program, "-D", data, *arguments], user=user, capture_output=True,
                text=True, check=False, cwd=name,
            )  # fmt: skip
            assert done.returncode == 0, done.stderr

        call("initdb", "--username", "study", "--auth", "trust", "--no-sync")
        call("pg_ctl", "start", "--wait", "-o", settings, "-l", f"{name}/log")
        try:
            yield f"postgresql://study@/postgres?host={name}"
        finally:
            call("pg_ctl", "stop", "--wait", "-m", "immediate")


def test_workspaces_share_the_trials_also_after_kills(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed at four calls of the database, beside another workspace on this machine."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    study_of(tmp_path / "one", server)
    beside = start(tmp_path / "two", TRIALS, -1, server)
    for call in (0, 4, 9, 14):
        killed = start(tmp_path / "one", TRIALS, call, server)
        killed.communicate()
        if killed.returncode == 0:
            break
        assert killed.returncode == -signal.SIGKILL
    assert beside.communicate()[1] == ""
    monkeypatch.setattr(study_module, "NEWBORN", timedelta(0))  # of trials killed in their birth
    run(tmp_path / "one", TRIALS, server)
    found = study_of(tmp_path / "one", server).list_trials()
    assert [trial.number for trial in found] == list(range(TRIALS))
    assert all(trial.figures is not None for trial in found)
    assert len({trial.host for trial in found}) == 2
