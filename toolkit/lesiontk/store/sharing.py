"""The exchange of artefacts between a workspace and a shared store."""

from __future__ import annotations

import logging
import platform
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from lesiontk.errors import DataError, MissingRequirementError, StorageError, UsageError
from lesiontk.files.hashing import hash_document
from lesiontk.progress import NoProgress, Progress
from lesiontk.records import Artefact, ParentEntry
from lesiontk.store.folder import WorkspaceFolder, replace_folder
from lesiontk.store.manifest import ManifestError
from lesiontk.store.shared import SharedStore
from lesiontk.system.disk import explain_disk_error

logger = logging.getLogger(__name__)


class SharingFolder(WorkspaceFolder):
    """A workspace that has a shared store, or none."""

    def __init__(
        self,
        workspace: Path,
        progress: Progress | None = None,
        shared: SharedStore | None = None,
    ) -> None:
        super().__init__(workspace)
        self.progress = progress or NoProgress()
        self.shared = shared

    def share(self, artefact: Artefact) -> None:
        """Copy an artefact and its ancestors to the shared store, if there is one.

        A damaged one is not copied, and none replaces another of its name. Raises
        `MissingRequirementError` if the shared store cannot be written.
        """
        if self.shared is None or self.shared.has(artefact):
            return
        try:
            content = self._publish(self.shared, artefact)
        except DataError as error:
            logger.warning("%s: not shared: %s", artefact.name, error)
            return
        if content != artefact.content:
            logger.warning(
                "%s: %s has another, made from the same inputs; what is made from the one here "
                "cannot be continued on another machine",
                artefact.name,
                self.shared.url,
            )

    def _publish(self, shared: SharedStore, artefact: Artefact) -> str:
        """Copy an artefact after its ancestors; return the content of the one that is there."""
        for entry in artefact.manifest.parents.values():
            if parent := self._find_parent(artefact, entry):
                self.share(parent)
        try:
            return shared.publish(artefact, self.progress)
        except MissingRequirementError as error:
            raise StorageError(
                f"{artefact.name} is in {self.workspace} and could not be shared: {error} The same "
                "command shares it when it is run again."
            ) from error

    @contextmanager
    def _claim(self, name: str) -> Iterator[bool]:
        """Wait while another machine makes the artefact; yield whether it is left to this one."""
        if self.shared is None:
            yield True
            return
        owner = hash_document([platform.node(), str(self.workspace.resolve())])
        with self.shared.claim(name, owner) as left:
            yield left

    def _agree(self, artefact: Artefact, found: Callable[[], Artefact | None]) -> Artefact:
        """Share an artefact; return the one there if another machine's has the same key."""
        if self.shared is None or self.shared.has(artefact):
            return artefact
        if self._publish(self.shared, artefact) == artefact.content:
            return artefact
        logger.warning(
            "%s: replaced by that of another machine, which was shared before; it stays in the "
            "workspace under a hidden name",
            artefact.name,
        )
        theirs = self._reuse_shared(artefact.name, found)
        if theirs is not None:
            return theirs
        self._publish(self.shared, artefact)  # the other is damaged
        return artefact

    def _reuse_shared(self, name: str, found: Callable[[], Artefact | None]) -> Artefact | None:
        """Fetch an artefact, and return it as `found` here; None if there is none to use."""
        try:
            fetched = self._fetch(name)
        except ManifestError as error:
            logger.warning("%s: not fetched, because there %s", name, error.reason)
            return None
        return fetched and found()

    def _fetch(self, name: str, content: str | None = None) -> Artefact | None:
        """Copy an artefact from the shared store into the workspace.

        Returns None without one there, or if it has not the `content`. Raises `ManifestError` if it
        is damaged.
        """
        if self.shared is None:
            return None
        self.shared.check()
        there = self.shared.read(name)
        if there is None or content not in (None, there.content):
            return None
        target, temporary = self.workspace / name, self.workspace / f".fetch-{name}.tmp"
        with self._lock(f"fetch-{name}"):
            if self.damage(target) is None and self._load(target).content == there.content:
                return self._load(target)  # another process fetched it
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
            try:
                self.shared.fetch(there, temporary, self.progress)
                replace_folder(target, temporary)
            except MissingRequirementError as error:
                cause = error.__cause__ or error
                raise (explain_disk_error(cause, self.workspace) or error) from cause
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
        logger.info("%s: fetched from %s", name, self.shared.url)
        return self._load(target)

    def _describe_shared(self, entry: ParentEntry) -> Artefact | None:
        """Return a parent that only the shared store has, without its files."""
        if self.shared is None:
            return None
        self.shared.check()
        there = self.shared.read(entry.name)
        if there is None or there.content != entry.content:
            return None
        return Artefact(self.workspace / entry.name, there)

    def list_shared(self, kind: str | None = None) -> list[Artefact]:
        """Return what the shared store has, the last made first; the files are not fetched.

        Raises `UsageError` without a shared store.
        """
        if self.shared is None:
            raise UsageError(
                "no shared store is given; specify its URL with --shared or LESIONTK_SHARED."
            )
        self.shared.check()
        found = self.shared.list_manifests(kind)
        return [Artefact(self.workspace / made.name, made) for made in found]
