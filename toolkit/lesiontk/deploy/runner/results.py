"""The results of ``run.py watch`` in SQLite: one row for each content of each file."""

from __future__ import annotations

import json
import os
import sqlite3
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType
from typing import Any

from lesiontk.deploy.runner.documents import Prediction

SCHEMA = """
CREATE TABLE IF NOT EXISTS results (
    id INTEGER PRIMARY KEY,
    path BLOB NOT NULL,          -- below the folder, as the system spells it
    name TEXT NOT NULL,          -- the same, readable
    sha256 TEXT NOT NULL,        -- of the file's bytes
    size INTEGER NOT NULL,
    modified_ns INTEGER NOT NULL,
    outcome TEXT NOT NULL CHECK (outcome IN ('classified', 'refused')),
    reason TEXT,                 -- why it was refused
    label TEXT,                  -- the most probable class
    positive INTEGER,            -- at the frozen threshold, if there is one
    prediction TEXT,             -- as `predict --json`
    bundle_sha256 TEXT NOT NULL,
    recorded_at TEXT NOT NULL,   -- UTC, by this machine's clock
    UNIQUE (path, sha256)
);
"""


class StorageError(Exception):
    """The results cannot be read or written."""

    exit_code = 2


@dataclass(frozen=True)
class FileState:
    """A file as a scan sees it: its path below the folder, bytes, and times of change in ns.

    `status_ns` also changes with the permissions; it is not stored.
    """

    path: bytes
    size: int
    modified_ns: int
    status_ns: int = 0

    @property
    def name(self) -> str:
        """The path as text; bytes that are none are escaped."""
        return self.path.decode("utf-8", "backslashreplace")


class Results:
    """An open database. A row is written whole and durably, or not at all."""

    def __init__(self, path: Path, bundle_sha256: str) -> None:
        self._path, self._bundle = path, bundle_sha256
        try:
            self._database = sqlite3.connect(os.fspath(path), timeout=30, isolation_level=None)
            mode = self._database.execute("PRAGMA journal_mode=WAL").fetchone()[0]
            self._database.execute("PRAGMA synchronous=FULL")
            self._database.executescript(SCHEMA)
        except sqlite3.Error as error:
            raise self._fault(error) from error
        if mode != "wal":
            self.close()
            raise StorageError(
                f"{path} is on a file system without a write-ahead log ({mode}); expected a local "
                "disk"
            )

    def __enter__(self) -> Results:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    def is_known(self, state: FileState) -> bool:
        """Return whether this state of a file has a result; a file that was never read has none."""
        row = self._run(
            "SELECT 1 FROM results WHERE path = ? AND size = ? AND modified_ns = ?"
            " AND sha256 != ''",
            (state.path, state.size, state.modified_ns),
        ).fetchone()
        return row is not None

    def note_touched(self, state: FileState, sha256: str) -> bool:
        """Return whether a result has this content, and remember the file's new time of change."""
        changed = self._run(
            "UPDATE results SET modified_ns = ? WHERE path = ? AND sha256 = ?",
            (state.modified_ns, state.path, sha256),
        )
        return changed.rowcount > 0

    def record(self, state: FileState, sha256: str, prediction: Prediction) -> None:
        """Store a prediction."""
        positive = prediction.get("positive")
        text = json.dumps(prediction, ensure_ascii=True)
        values = (None, prediction["label"], None if positive is None else int(positive), text)
        self._insert(state, sha256, "classified", values)

    def refuse(self, state: FileState, sha256: str, reason: str) -> None:
        """Store why a file has no prediction."""
        readable = reason.encode("utf-8", "backslashreplace").decode()
        self._insert(state, sha256, "refused", (readable, None, None, None))

    def _insert(self, state: FileState, sha256: str, outcome: str, values: tuple[Any, ...]) -> None:
        now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        self._run(
            "INSERT OR IGNORE INTO results (path, name, sha256, size, modified_ns, outcome, reason,"
            " label, positive, prediction, bundle_sha256, recorded_at)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                *(state.path, state.name, sha256, state.size, state.modified_ns, outcome),
                *(*values, self._bundle, now),
            ),
        )

    def _run(self, statement: str, values: tuple[Any, ...]) -> sqlite3.Cursor:
        try:
            return self._database.execute(statement, values)
        except sqlite3.Error as error:
            raise self._fault(error) from error

    def _fault(self, error: sqlite3.Error) -> StorageError:
        return StorageError(
            f"{self._path}: {error}. No result was lost: files without one are classified at the "
            "next start; free space or name another file"
        )
