"""The folder of a workspace: its locks, and the artefacts that lie in it."""

from __future__ import annotations

import fcntl
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pydantic import ValidationError

from lesiontk.errors import DataError, MissingRequirementError
from lesiontk.files.hashing import hash_file
from lesiontk.files.strict_json import read_json
from lesiontk.records import Artefact, Failure, ParentEntry
from lesiontk.store.manifest import MANIFEST, ManifestError, read_manifest
from lesiontk.store.own_files import check_own_files
from lesiontk.store.use_order import UseOrder

logger = logging.getLogger(__name__)

FAILURE = "failed.json"


class WorkspaceFolder:
    """The artefacts in a workspace, for any number of processes."""

    def __init__(self, workspace: Path) -> None:
        self.workspace = workspace
        self._use_order = UseOrder(workspace)
        self._left_out: set[str] = set()
        self._checked = False

    # ---------------------------------------------------------------- locks

    def _clear_dead(self) -> None:
        """Remove the unfinished work of killed processes, whose locks are free."""
        for temporary in self.workspace.glob(".*.tmp"):
            if not temporary.is_dir():
                continue
            lock = self.workspace / ".locks" / temporary.name[1:].removesuffix(".tmp")
            with suppress(OSError), lock.open("w") as stream:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(temporary, ignore_errors=True)

    def _check_own_files(self) -> None:
        if not self._checked:
            check_own_files(self.workspace)
            self._checked = True

    @contextmanager
    def hold(self, name: str) -> Iterator[None]:
        """Hold a lock of the workspace, such as that of a device on which one engine is timed."""
        with self._lock(name):
            yield

    @contextmanager
    def _lock(self, name: str, *, log: bool = False) -> Iterator[None]:
        """Hold a lock of the workspace; it is released when the process exits."""
        self._check_own_files()
        folder = self.workspace / ".locks"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            stream = (folder / name).open("w")
        except OSError as error:
            raise MissingRequirementError(
                f"the workspace {self.workspace} cannot be written ({error.strerror}); "
                "specify another with --workspace."
            ) from error
        with stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if log:
                    logger.warning("%s: another process is making it; waiting", name)
                fcntl.flock(stream, fcntl.LOCK_EX)
            yield

    # ---------------------------------------------------------------- artefacts

    def _load(self, folder: Path) -> Artefact:
        return Artefact(folder, read_manifest(folder))

    def damage(self, folder: Path) -> str | None:
        """Return why the folder is not an intact artefact, or None if it is."""
        if not (folder / MANIFEST).is_file():
            return "an earlier run failed" if (folder / FAILURE).is_file() else "it has no manifest"
        try:
            files = self._load(folder).manifest.files
        except ManifestError as error:
            return error.reason
        for name, entry in files.items():
            path = folder / name
            if not path.is_file():
                return f"{name} is missing"
            if path.stat().st_size != entry.bytes or hash_file(path) != entry.sha256:
                return f"{name} was changed"
        return None

    def list_artefacts(self, kind: str | None = None) -> list[Artefact]:
        """Return the readable artefacts, most recently used first.

        Artefacts without a recorded use, because they were copied here, come last.
        """
        self._check_own_files()
        artefacts = []
        for name in self.list_names():
            try:
                artefacts.append(self._load(self.workspace / name))
            except ManifestError as error:
                if name not in self._left_out:
                    self._left_out.add(name)
                    logger.warning("%s: left out, because %s", name, error.reason)
        rank = self._use_order.read()
        artefacts.sort(
            key=lambda a: (rank.get(a.path.name, -1), a.manifest.created, a.name), reverse=True
        )
        return [artefact for artefact in artefacts if kind in (None, artefact.kind)]

    def list_names(self) -> list[str]:
        """Return the names of the folders with a manifest, valid or not."""
        if not self.workspace.is_dir():
            return []
        return [
            folder.name
            for folder in sorted(self.workspace.iterdir())
            if not folder.name.startswith(".") and (folder / MANIFEST).is_file()
        ]

    def failures(self) -> list[Failure]:
        """Return the failure of every stage whose last run failed."""
        found = []
        for path in sorted(self.workspace.glob(f"*/{FAILURE}")):
            if path.parent.name.startswith("."):
                continue
            try:
                found.append(Failure.model_validate(read_json(path, "failure")))
            except DataError as error:
                logger.warning("left out: %s", error)
            except ValidationError:
                logger.warning("left out: %s does not contain the error", path)
        return found

    def parent_damage(self, artefact: Artefact, role: str) -> str | None:
        """Return why the parent beside an artefact is not the one it was made from, else None.

        Returns None for a deleted parent, too.
        """
        entry = artefact.manifest.parents[role]
        folder = artefact.path.parent / entry.name
        if not (folder / MANIFEST).is_file():
            return None
        try:
            found = self._load(folder)
        except ManifestError as error:
            return f"cannot be used: {error.reason}"
        if found.content == entry.content:
            return None
        return (
            "was changed since: run the command that made "
            f"{artefact.name} again to rebuild it from the current one"
        )

    def _find_parent(self, artefact: Artefact, entry: ParentEntry) -> Artefact | None:
        """Return a recorded parent if it is beside the artefact and unchanged."""
        try:
            found = self._load(artefact.path.parent / entry.name)
        except ManifestError:
            return None
        return found if found.content == entry.content else None


def replace_folder(target: Path, temporary: Path) -> None:
    """Move `temporary` to `target`; an existing folder there is kept under another name."""
    if target.exists():
        number = 1
        while (aside := target.with_name(f".{target.name}.old-{number}")).exists():
            number += 1
        target.rename(aside)
    temporary.rename(target)
