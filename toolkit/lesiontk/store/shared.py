"""A shared store: artefacts at a URL that several machines read and write, through fsspec.

``<url>/<kind>-<first 12 digits of key>/`` contains each file of an artefact under its SHA-256, and
``manifest.json``, which is written last: an artefact with a manifest is whole. Machines that make
the same artefact at once never write different bytes to one object, and the first manifest stays.
"""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from lesiontk.errors import (
    DataError,
    LesionTKError,
    MissingRequirementError,
    StorageError,
    UsageError,
)
from lesiontk.files.hashing import hash_file
from lesiontk.files.strict_json import BYTES
from lesiontk.progress import Progress
from lesiontk.records import ARTEFACT_NAME, Artefact, FileEntry, Manifest
from lesiontk.store.claim import DEFAULT_POLICY, ClaimPolicy, hold_claim
from lesiontk.store.manifest import MANIFEST, ManifestError, parse_manifest, write_manifest
from lesiontk.store.shared_url import OBJECT_STORES, S3, check_url, explain_failure
from lesiontk.store.use_order import USE_ORDER

logger = logging.getLogger(__name__)

TRANSFERS = 4
"""Files in transfer at once; S3 holds each in memory up to 100 MB."""


class SharedStore:
    """The artefacts at a URL such as ``s3://bucket/prefix`` or ``file:///mnt/share``.

    Credentials come from the environment or from the configuration of fsspec, never from the URL.
    Nothing is connected before the first use. Raises `UsageError` for another form of URL and
    `MissingRequirementError` without the package for its scheme.
    """

    def __init__(self, url: str, policy: ClaimPolicy = DEFAULT_POLICY) -> None:
        self.url = check_url(url)
        self._policy = policy
        self._scheme = url.partition("://")[0]
        self._renames = self._scheme not in OBJECT_STORES
        self._known: set[tuple[str, str]] = set()
        self._damaged: set[str] = set()
        self._reached = False

    def __reduce__(self) -> tuple[type[SharedStore], tuple[str, ClaimPolicy]]:
        return SharedStore, (self.url, self._policy)  # a connection belongs to its process

    @cached_property
    def _opened(self) -> tuple[Any, str]:
        """The file system of fsspec, and the root in its own form."""
        import fsspec

        with self._reaching("opened"):
            opened: tuple[Any, str] = fsspec.url_to_fs(self.url, use_listings_cache=False)
        return opened

    def _path(self, *parts: str) -> str:
        return "/".join([self._opened[1], *parts])

    def check(self) -> None:
        """Connect once. Raises `MissingRequirementError` if that fails, or without the folder."""
        if self._reached:
            return
        files, root = self._opened
        with self._reaching("reached"):
            try:
                is_file = files.info(root)["type"] == "file"
            except FileNotFoundError as error:
                is_file = False
                if self._renames or self._lacks_bucket(error):
                    what = "folder" if self._renames else "bucket"
                    raise MissingRequirementError(
                        f"the {what} of the shared store {self.url} does not exist; expected an "
                        "existing one: create it, or correct the URL."
                    ) from error
            is_workspace = files.exists(self._path(USE_ORDER))
        if is_file:
            raise UsageError(f"the shared store {self.url} is a file; expected a folder.")
        if is_workspace:
            raise UsageError(
                f"the shared store {self.url} is a workspace; expected a folder of its own, such "
                "as an empty one: artefacts have another form there."
            )
        self._reached = True

    def _lacks_bucket(self, error: FileNotFoundError) -> bool:
        """Return whether the bucket is missing, not only the prefix, which the first push makes."""
        files, root = self._opened
        bucket, _, prefix = root.partition("/")
        if not prefix:
            return True
        if self._scheme in S3:  # who may read a prefix only cannot ask for the bucket
            return "NoSuchBucket" in repr(error.__cause__)
        return not files.exists(bucket)

    # ---------------------------------------------------------------- read

    def read(self, name: str) -> Manifest | None:
        """Return the manifest of an artefact there, or None if there is none.

        Raises `ManifestError` for one that cannot be used.
        """
        where = f"{self.url}/{name}"
        try:
            content = self._read(f"{name}/{MANIFEST}")
            if content is None:
                return None
            manifest = parse_manifest(content, where)
            if manifest.name != name:
                raise ManifestError(where, f"its manifest is that of {manifest.name}")
        except ManifestError:
            self._damaged.add(name)
            raise
        return manifest

    def _read(self, path: str) -> bytes | None:
        """Return a small object, or None if there is none."""
        files, place = self._opened[0], self._path(path)
        with self._reaching("read"):
            try:
                if (size := files.info(place)["size"]) <= BYTES:
                    content: bytes = files.cat_file(place)
                    return content
            except FileNotFoundError:
                return None
        raise ManifestError(f"{self.url}/{path}", f"it has {size} bytes; expected {BYTES} at most")

    def fetch(self, manifest: Manifest, folder: Path, progress: Progress) -> None:
        """Copy the artefact of a manifest that was read there into an empty folder.

        Every file's size and SHA-256 are checked. Raises `ManifestError` if one differs; then the
        next `publish` replaces the artefact.
        """
        name, where = manifest.name, f"{self.url}/{manifest.name}"

        def get(file: str, entry: FileEntry) -> None:
            path = folder / file
            path.parent.mkdir(parents=True, exist_ok=True)
            with self._reaching("read"):
                try:
                    self._opened[0].get_file(self._path(name, entry.sha256), str(path))
                except FileNotFoundError as error:
                    raise ManifestError(where, f"{file} is missing") from error
            if path.stat().st_size != entry.bytes or hash_file(path) != entry.sha256:
                raise ManifestError(where, f"{file} was changed")

        try:
            _transfer(f"fetching {name}", manifest.files.items(), get, progress)
        except ManifestError:
            self._damaged.add(name)
            raise
        write_manifest(folder, manifest.model_dump())
        self._known.add((name, manifest.content))

    def list_manifests(self, kind: str | None = None) -> list[Manifest]:
        """Return the readable manifests there, the last made first; the others are logged."""
        with self._reaching("listed"):
            try:
                paths = self._opened[0].ls(self._opened[1], detail=False)
            except FileNotFoundError:
                paths = []
        names = [str(path).rstrip("/").rpartition("/")[2] for path in paths]
        names = [n for n in names if ARTEFACT_NAME.fullmatch(n)]

        def read(name: str) -> Manifest | None:
            try:
                return self.read(name)
            except ManifestError as error:
                logger.warning("%s: left out, because %s", name, error.reason)
                return None

        with ThreadPoolExecutor(TRANSFERS) as pool:
            found = pool.map(read, [n for n in names if kind in (None, n.rpartition("-")[0])])
            return sorted(filter(None, found), key=lambda made: made.created, reverse=True)

    # ---------------------------------------------------------------- write

    def has(self, artefact: Artefact) -> bool:
        """Return whether this object has found or put the artefact there."""
        return (artefact.name, artefact.content) in self._known

    def publish(self, artefact: Artefact, progress: Progress) -> str:
        """Copy an artefact there unless a whole one has its key; return the content of that one.

        Raises `DataError` if a file of the artefact was changed.
        """
        name, there = artefact.name, None
        try:
            there = self.read(name)
        except ManifestError as error:
            logger.warning("%s: replaced at %s, because %s", name, self.url, error.reason)
        damaged = name in self._damaged
        if there is None or damaged or there.key != artefact.key:
            new = there is None and not damaged
            self._push(artefact, progress, new=new)
            self._damaged.discard(name)
            there = self.read(name)  # another machine's may have been first
        content = artefact.content if there is None else there.content
        self._known.add((name, content))
        return content

    def _push(self, artefact: Artefact, progress: Progress, *, new: bool) -> None:
        name, files = artefact.name, artefact.manifest.files

        def put(file: str, entry: FileEntry) -> None:
            source = artefact.path / file
            if not source.is_file() or hash_file(source) != entry.sha256:
                raise DataError(f"{file} of {name} was changed; it will be rebuilt when it is used")
            self._put(source, self._path(name, entry.sha256))

        _transfer(f"sharing {name}", files.items(), put, progress)
        manifest = (artefact.path / MANIFEST).read_bytes()
        self._write(self._path(name, MANIFEST), manifest, new=new)

    def _put(self, source: Path, target: str) -> None:
        """Copy a file, which appears whole."""
        files = self._opened[0]
        with self._reaching("written"):
            if not self._renames:
                files.put_file(str(source), target)
                return
            with self._temporary(target) as temporary:
                files.put_file(str(source), temporary)
                files.mv(temporary, target)

    @contextmanager
    def _temporary(self, target: str) -> Iterator[str]:
        """Yield another name in the target's folder, which object stores do not need.

        A failure leaves no file of that name, which would keep a full disk full.
        """
        files, temporary = self._opened[0], f"{target}.{uuid.uuid4().hex}.tmp"
        files.makedirs(target.rpartition("/")[0], exist_ok=True)
        try:
            yield temporary
        except BaseException:
            with suppress(Exception):  # the first error is the reason
                files.rm_file(temporary)
            raise

    def _write(self, target: str, content: bytes, *, new: bool) -> bool:
        """Write a small object, which appears whole; return False if `new` and it exists."""
        files = self._opened[0]
        with self._reaching("written"):
            if not self._renames:
                try:
                    files.pipe_file(target, content, mode="create" if new else "overwrite")
                except FileExistsError:
                    return False
                return True
            with self._temporary(target) as temporary:
                files.pipe_file(temporary, content)
                if new and self._scheme in ("file", "local"):
                    return _link_new(Path(temporary), Path(target))
                if new and files.exists(target):
                    files.rm_file(temporary)
                    return False
                files.mv(temporary, target)
                return True

    @contextmanager
    def claim(self, name: str, owner: str) -> Iterator[bool]:
        """Wait while another machine makes the artefact; yield whether it is left to this one.

        `owner` identifies a workspace, of which one process at a time claims the artefact.
        """

        def is_made() -> bool:
            with self._reaching("read"):
                made: bool = self._opened[0].exists(self._path(name, MANIFEST))
            return made and name not in self._damaged

        with hold_claim(_Objects(self, name), name, owner, is_made, self._policy) as left:
            yield left

    # ---------------------------------------------------------------- errors

    @contextmanager
    def _reaching(self, done: str) -> Iterator[None]:
        """Raise `StorageError` for any error of the file system."""
        try:
            yield
        except LesionTKError:
            raise
        except Exception as error:  # each file system raises classes of its own
            raise StorageError(
                f"the shared store {self.url} cannot be {done}: "
                f"{explain_failure(error, self._scheme)}"
            ) from error


def _link_new(temporary: Path, target: Path) -> bool:
    """Give a whole file its name unless the name is taken; return whether it was free."""
    try:
        os.link(temporary, target)
    except FileExistsError:
        return False
    except OSError:  # a file system without hard links
        if target.exists():
            return False
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    return True


@dataclass(frozen=True, slots=True)
class _Objects:
    """The small objects of one artefact."""

    shared: SharedStore
    artefact: str

    def read(self, name: str) -> bytes | None:
        return self.shared._read(f"{self.artefact}/{name}")

    def write(self, name: str, content: bytes, *, new: bool = False) -> bool:
        return self.shared._write(self.shared._path(self.artefact, name), content, new=new)

    def remove(self, name: str) -> None:
        with self.shared._reaching("written"):
            self.shared._opened[0].rm_file(self.shared._path(self.artefact, name))


def _transfer(
    description: str,
    files: Iterable[tuple[str, FileEntry]],
    move: Callable[[str, FileEntry], None],
    progress: Progress,
) -> None:
    """Move several files at once; the first error is raised and the files not begun are left."""
    entries = dict(files)
    total = sum(entry.bytes for entry in entries.values())
    with ThreadPoolExecutor(TRANSFERS) as pool, progress.task(description, total) as advance:
        moves = {pool.submit(move, *each): each[1].bytes for each in entries.items()}
        try:
            for moved in as_completed(moves):
                moved.result()
                advance(moves[moved])
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
