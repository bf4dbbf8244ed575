"""Fetch the official data sources: resumable downloads, verified, unpacked into the usual layout.

Every file is checked against all that is known of it: what `sources.yaml` states, what
the publisher's API states, and the SHA-256 that the first download left in ``checksums.json``.
A download grows in ``NAME.part`` and is renamed once verified; a wrong one is kept as ``NAME.bad``.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from lesiontk.data.fetch.archives import (
    DEFAULT_LIMITS,
    ProgressCallback,
    UnpackLimits,
    check_zip,
    unpack_file,
    unpack_folder,
)
from lesiontk.data.fetch.download import (
    DEFAULT_POLICY,
    DownloadPolicy,
    Statement,
    download_file,
    part_of,
    read_json,
    state_of,
)
from lesiontk.data.fetch.sources import (
    PINS_NAME,
    OfficialSource,
    Placement,
    RemoteFile,
    find_official_source,
    list_official_sources,
    read_official_sources,
)
from lesiontk.errors import DataError, LesionTKError, MissingRequirementError
from lesiontk.files.folder_lock import hold_folder

__all__ = [
    "DEFAULT_POLICY",
    "DownloadPolicy",
    "FetchResult",
    "FetchedFile",
    "OfficialSource",
    "Placement",
    "RemoteFile",
    "fetch_source",
    "find_official_source",
    "list_official_sources",
    "read_official_sources",
    "statements_from_dataverse",
]

logger = logging.getLogger(__name__)
WAITING = "%s: another process fetches into it; waiting"
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class FetchedFile:
    """`path` is where the content stands: the file, or what was unpacked from it.

    `bytes` and `sha256` are those of the file as published. `origin` is ``downloaded``,
    ``present`` (found in the folder) or ``unpacked`` (the archive is gone, its content is here).
    `verified_by` names every statement the file agreed with, or says that it was pinned now.
    """

    name: str
    path: Path
    bytes: int
    sha256: str
    origin: str
    verified_by: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FetchResult:
    """What `fetch_source` did; the caller shows `licence_notice`."""

    source: OfficialSource
    directory: Path
    files: tuple[FetchedFile, ...]
    licence_notice: str


def fetch_source(
    source: OfficialSource,
    directory: Path,
    *,
    unpack: bool = True,
    progress: ProgressCallback | None = None,
    policy: DownloadPolicy = DEFAULT_POLICY,
    limits: UnpackLimits = DEFAULT_LIMITS,
) -> FetchResult:
    """Bring a source into `directory`: what is there is verified, what lacks is downloaded.

    A file placed in `directory` by hand counts as downloaded. A download that broke off goes on
    where it stopped, also in a later call. Archives stay; one that was unpacked may be deleted.
    Of several processes with one folder each waits for those before it.

    Raises:
        DataError: a file is not what was published or pinned (it is kept as ``NAME.bad``), the
            server does not have it, an archive is unsafe, or other files stand in the way.
        MissingRequirementError: no network, no answer after `policy.tries`, or a full disk; the
            message says where to download by hand and which folder to put the file in.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with hold_folder(directory, lambda: logger.warning(WAITING, directory)):
            fetch = _Fetch(source, directory, unpack, progress, policy, limits)
            files = tuple(fetch.fetch_file(file) for file in source.files)
    except OSError as error:
        raise MissingRequirementError(
            f"cannot write below {directory} ({error}); expected a folder with room that you may "
            f"write to."
        ) from error
    return FetchResult(source, directory, files, source.notice)


@dataclass(frozen=True, slots=True)
class _Measure:
    files: int
    bytes: int


@dataclass(frozen=True, slots=True)
class _Pin:
    """What ``checksums.json`` says of a file, and of what was unpacked from it."""

    bytes: int
    sha256: str
    unpacked: _Measure | None = None


class _Fetch:
    """One call of `fetch_source`; it reads the pins once and asks the publisher's API once."""

    def __init__(
        self,
        source: OfficialSource,
        directory: Path,
        unpack: bool,
        progress: ProgressCallback | None,
        policy: DownloadPolicy,
        limits: UnpackLimits,
    ) -> None:
        self.source, self.directory, self.unpack = source, directory, unpack
        self.policy, self.limits = policy, limits
        self.progress: ProgressCallback = progress or (lambda description, done, total: None)
        self.pins = _read_pins(directory / PINS_NAME)
        self._published: dict[int, tuple[Statement, ...]] | None = None

    def fetch_file(self, file: RemoteFile) -> FetchedFile:
        path, pin = self.directory / file.name, self.pins.get(file.name)
        present = path.exists()
        if pin and not present and self.unpack and self._is_unpacked(file):
            target = self._target(file)
            return FetchedFile(file.name, target, pin.bytes, pin.sha256, "unpacked", ())
        try:
            statements = self._statements(file, download=not present)
            if not present:
                download_file(file, path, statements, self.policy, self.progress)
        except LesionTKError as error:
            if present:
                raise
            raise type(error)(f"{error} {self._by_hand()}") from error
        arrived = path if present else part_of(path)
        size, sha256 = _verify(arrived, path, statements, self.progress)
        if not present:
            arrived.replace(path)
            state_of(path).unlink(missing_ok=True)
        placed, unpacked = self._unpack(file, path)
        self._pin(file.name, _Pin(size, sha256, unpacked))  # last: a wrong archive is not pinned
        checks = [f"{s.kind} from {s.origin}" for s in statements if s.kind != "bytes"]
        if not checks:
            logger.warning("%s has no published checksum; SHA-256 pinned in %s", path, PINS_NAME)
            checks = [f"pinned now in {PINS_NAME}"]
        origin = "present" if present else "downloaded"
        return FetchedFile(file.name, placed, size, sha256, origin, tuple(checks))

    def _statements(self, file: RemoteFile, *, download: bool) -> tuple[Statement, ...]:
        """Collect all that is known of a file; two that contradict each other are an error."""
        pin = self.pins.get(file.name)
        stated = [
            ("bytes", file.bytes, "the list of sources"),
            ("md5", file.md5, "the list of sources"),
            ("sha256", file.sha256, "the list of sources"),
            ("bytes", pin and pin.bytes, PINS_NAME),
            ("sha256", pin and pin.sha256, PINS_NAME),
        ]
        known = [Statement(kind, str(v), origin) for kind, v, origin in stated if v is not None]
        unverifiable = all(statement.kind == "bytes" for statement in known)
        if file.dataverse_id is not None and (download or unverifiable):
            try:
                known.extend(self._published_statements(file))
            except DataError as error:
                if unverifiable:
                    raise
                logger.warning("%s: %s Verified by %s alone.", file.name, error, known[-1].origin)
        by_kind: dict[str, Statement] = {}
        for statement in known:
            other = by_kind.setdefault(statement.kind, statement)
            if other.value != statement.value:
                raise DataError(
                    f"{statement.kind} of {file.name} is {other.value} in {other.origin} and "
                    f"{statement.value} in {statement.origin}; expected one answer. If the "
                    f"publisher replaced the file, bring the outdated one up to date."
                )
        return tuple(known)

    def _published_statements(self, file: RemoteFile) -> tuple[Statement, ...]:
        if self.source.dataverse_api is None:
            raise DataError(f"{file.name} has a dataverse_id; expected the source's dataverse_api.")
        if self._published is None:
            document = read_json(self.source.dataverse_api, self.policy)
            self._published = statements_from_dataverse(document, self.source)
        assert file.dataverse_id is not None
        if file.dataverse_id not in self._published:
            raise DataError(
                f"{self.source.dataverse_api} does not list file {file.dataverse_id}; expected "
                f"{file.name}, perhaps of an older version of the data set."
            )
        return self._published[file.dataverse_id]

    def _by_hand(self) -> str:
        lacking = [f for f in self.source.files if not (self.directory / f.name).exists()]
        steps = "; ".join(f"{f.url} as {self.directory / f.name}" for f in lacking)
        return (
            f"To fetch by hand, save {steps}; then run the command again, which verifies and "
            f"unpacks what it finds. The data set's page is {self.source.homepage}"
        )

    def _pin(self, name: str, pin: _Pin) -> None:
        if self.pins.get(name) != pin:
            self.pins[name] = pin
            files = {name: asdict(pin) for name, pin in self.pins.items()}
            text = json.dumps({"format": 1, "files": files}, indent=2, sort_keys=True)
            temporary = self.directory / f".{PINS_NAME}.new"
            temporary.write_text(text + "\n", encoding="utf-8")
            temporary.replace(self.directory / PINS_NAME)

    def _target(self, file: RemoteFile) -> Path:
        assert file.unpack is not None
        into = file.unpack.into
        return self.directory / (file.unpack.members if into == "." else into)

    def _is_unpacked(self, file: RemoteFile) -> bool:
        """Whether the archive's content is here as it was left; changed content is an error."""
        pin = self.pins.get(file.name)
        left = pin.unpacked if pin else None
        if file.unpack is None or left is None or not (target := self._target(file)).exists():
            return False
        if (found := _measure(target)) != left:
            raise DataError(
                f"{target} has {found.files} files of {found.bytes} bytes; expected {left.files} "
                f"of {left.bytes}, as unpacked. Move it away and run again."
            )
        return True

    def _unpack(self, file: RemoteFile, path: Path) -> tuple[Path, _Measure | None]:
        """Return where the content of `file` stands and, where it was unpacked, how much it is."""
        plan = file.unpack
        if not self.unpack or plan is None:
            pin = self.pins.get(file.name)
            return path, pin.unpacked if pin else None
        target = self._target(file)
        if not self._is_unpacked(file):
            how = (self.limits, self.progress, self.policy.free_bytes)
            if plan.into == ".":
                unpack_file(path, target, *how)
            else:
                unpack_folder(path, target, *how, members=plan.members, count=plan.count)
        return target, _measure(target)


def _measure(target: Path) -> _Measure:
    """Count files and bytes, without the hidden files that file managers leave in folders."""
    files = [target] if target.is_file() else list(target.iterdir())
    sizes = [file.stat().st_size for file in files if not file.name.startswith(".")]
    return _Measure(len(sizes), sum(sizes))


def _read_pins(path: Path) -> dict[str, _Pin]:
    if not path.exists():
        return {}
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if document["format"] != 1:
            raise ValueError(f"format {document['format']!r}")
        pins = {}
        for name, pin in document["files"].items():
            left = pin["unpacked"]
            measure = left and _Measure(int(left["files"]), int(left["bytes"]))
            pins[str(name)] = _Pin(int(pin["bytes"]), str(pin["sha256"]), measure)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path} cannot be read ({error!r}); expected the checksums of an earlier fetch. Move "
            f"it away to pin the files anew."
        ) from error
    return pins


def _verify(
    file: Path, path: Path, statements: Iterable[Statement], progress: ProgressCallback
) -> tuple[int, str]:
    """Return bytes and SHA-256 of `file`; what differs from a statement becomes NAME.bad."""
    size, done = file.stat().st_size, 0
    md5, sha256 = hashlib.md5(usedforsecurity=False), hashlib.sha256()
    with file.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            md5.update(chunk)
            sha256.update(chunk)
            done += len(chunk)
            progress(f"verify {path.name}", done, size)
    found = {"bytes": str(size), "md5": md5.hexdigest(), "sha256": sha256.hexdigest()}
    wrong = [
        f"{s.kind} is {found[s.kind]}, expected {s.value} ({s.origin})"
        for s in statements
        if found[s.kind] != s.value
    ]
    if not wrong and path.suffix == ".zip":
        try:
            check_zip(file)  # a server's error page must not be pinned
        except DataError as error:
            wrong = [str(error)]
    if wrong:
        bad, number = path.with_name(f"{path.name}.bad"), 2
        while bad.exists():
            bad, number = path.with_name(f"{path.name}.bad-{number}"), number + 1
        file.replace(bad)
        state_of(path).unlink(missing_ok=True)
        raise DataError(
            f"{path.name} is not the file it should be: {'; '.join(wrong)}. Kept as {bad}; run "
            f"again to download it anew. Should the publisher have replaced the file, remove its "
            f"entry from {PINS_NAME} first."
        )
    return size, found["sha256"]


def statements_from_dataverse(
    document: Any, source: OfficialSource
) -> dict[int, tuple[Statement, ...]]:
    """Return size and MD5 by file id from a Dataverse data set's JSON (native API).

    Of a table that Dataverse ingested, ``filesize`` is that of its own tab-separated copy but
    ``md5`` that of the original, whose size is ``originalFileSize`` (IQSS/dataverse issue 5321).
    So nothing is stated of such a file unless its URL asks for ``format=original``.

    Raises:
        DataError: the document has another form.
    """
    origin = str(urlsplit(source.dataverse_api or "").hostname)
    originals = {file.dataverse_id for file in source.files if "format=original" in file.url}
    try:
        data = document["data"]
        files = data if isinstance(data, list) else data.get("latestVersion", data)["files"]
        published = {}
        for entry in files:
            file = entry["dataFile"]
            size, md5 = file["filesize"], file.get("md5")
            if "originalFileFormat" in file or "originalFileSize" in file:
                original = file["id"] in originals
                size, md5 = (file.get("originalFileSize"), md5) if original else (None, None)
            published[int(file["id"])] = tuple(
                Statement(kind, str(value).lower(), origin)
                for kind, value in (("bytes", size), ("md5", md5))
                if value is not None
            )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(
            f"{source.dataverse_api} answered something else ({error!r}); expected a Dataverse "
            f"data set with data.latestVersion.files."
        ) from error
    return published
