"""Download, verify and unpack the official data sources.

pooch downloads and verifies a file against the checksum in `sources.yaml`, or the SHA-256 of the
first download in ``checksums.json``. A file that does not match is kept as ``NAME.bad``.
"""

from __future__ import annotations

import logging
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pooch
from pydantic import ValidationError

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
    ResumingDownloader,
    part_of,
    state_of,
)
from lesiontk.data.fetch.sources import PINS_NAME, OfficialSource, RemoteFile, StrictModel
from lesiontk.errors import DataError, LesionTKError, MissingRequirementError
from lesiontk.files.folder_lock import hold_folder
from lesiontk.recipe.reading import explain_invalid

logger = logging.getLogger(__name__)
WAITING = "%s: waiting for another fetch"
LISTED = "the list of sources"


@dataclass(frozen=True, slots=True)
class FetchedFile:
    """A fetched file; `path` is the file, or the folder it was unpacked to.

    `bytes` and `sha256` are those of the published file. `origin` is ``downloaded``, ``present``
    (already in the folder) or ``unpacked`` (the archive was deleted, its content is present).
    `verified_by` lists the statements that the file matches, or states that it was pinned now.
    """

    name: str
    path: Path
    bytes: int
    sha256: str
    origin: str
    verified_by: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FetchResult:
    """The result of `fetch_source`; the caller shows ``source.notice``."""

    source: OfficialSource
    directory: Path
    files: tuple[FetchedFile, ...]


def fetch_source(
    source: OfficialSource,
    directory: Path,
    *,
    unpack: bool = True,
    progress: ProgressCallback | None = None,
    policy: DownloadPolicy = DEFAULT_POLICY,
    limits: UnpackLimits = DEFAULT_LIMITS,
) -> FetchResult:
    """Download a source into `directory`; verify the files that are already present.

    A file placed in `directory` by hand counts as downloaded. An interrupted download is resumed,
    also in a later call. Archives are kept; unpacked ones may be deleted. A lock serializes several
    processes with one folder.

    Raises:
        DataError: a file does not match its published or pinned checksum (it is kept as
            ``NAME.bad``), the server does not have it, an archive is unsafe, or other files exist.
        MissingRequirementError: no network, no response after `policy.tries`, or a full disk; the
            message contains the URL and the folder for a download by hand.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with hold_folder(directory, lambda: logger.warning(WAITING, directory)):
            fetch = _Fetch(source, directory, unpack, progress, policy, limits)
            files = tuple(fetch.fetch_file(file) for file in source.files)
    except OSError as error:
        raise MissingRequirementError(
            f"cannot write below {directory} ({error}); expected a writable folder with free space."
        ) from error
    return FetchResult(source, directory, files)


class _Measure(StrictModel):
    files: int
    bytes: int


class _Pin(StrictModel):
    """The record of a file and of its unpacked content in ``checksums.json``."""

    bytes: int
    sha256: str
    unpacked: _Measure | None = None


class _Pins(StrictModel):
    format: Literal[1]
    files: dict[str, _Pin]


@dataclass(frozen=True, slots=True)
class _Statement:
    """An expected property of a file: `kind` is ``bytes``, ``md5`` or ``sha256``."""

    kind: str
    value: str
    origin: str

    @property
    def is_checksum(self) -> bool:
        return self.kind != "bytes"


class _Fetch:
    """The state of one call of `fetch_source`; the pins are read once."""

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

    def fetch_file(self, file: RemoteFile) -> FetchedFile:
        path, pin = self.directory / file.name, self.pins.get(file.name)
        present = path.exists()
        if pin and not present and self.unpack and self._is_unpacked(file):
            target = self._target(file)
            return FetchedFile(file.name, target, pin.bytes, pin.sha256, "unpacked", ())
        statements = self._statements(file)
        if not present:
            self._download(file, path, statements)
        part_of(path).unlink(missing_ok=True)  # the file is present
        state_of(path).unlink(missing_ok=True)
        self.progress(f"verify {path.name}", 0, size := path.stat().st_size)
        sha256 = _verify(path, path, statements)
        self.progress(f"verify {path.name}", size, size)
        placed, unpacked = self._unpack(file, path)
        # Last, so that a wrong archive is not pinned.
        self._pin(file.name, _Pin(bytes=size, sha256=sha256, unpacked=unpacked))
        checks = [f"{s.kind} from {s.origin}" for s in statements if s.is_checksum]
        if not checks:
            logger.warning("%s has no published checksum; SHA-256 pinned in %s", path, PINS_NAME)
            checks = [f"pinned now in {PINS_NAME}"]
        origin = "present" if present else "downloaded"
        return FetchedFile(file.name, placed, size, sha256, origin, tuple(checks))

    def _statements(self, file: RemoteFile) -> tuple[_Statement, ...]:
        """Return the expected properties of a file, the strongest checksum first."""
        pin = self.pins.get(file.name)
        stated = [
            ("sha256", pin and pin.sha256, PINS_NAME),
            ("sha256", file.sha256, LISTED),
            ("md5", file.md5, LISTED),
            ("bytes", file.bytes, LISTED),
            ("bytes", pin and pin.bytes, PINS_NAME),
        ]
        return tuple(
            _Statement(kind, str(v), origin) for kind, v, origin in stated if v is not None
        )

    def _download(self, file: RemoteFile, path: Path, statements: tuple[_Statement, ...]) -> None:
        size = next((int(s.value) for s in statements if s.kind == "bytes"), None)
        known = next((f"{s.kind}:{s.value}" for s in statements if s.is_checksum), None)
        download = ResumingDownloader(path, size, known is not None, self.policy, self.progress)
        scratch = self.directory / ".pooch"
        shutil.rmtree(scratch, ignore_errors=True)  # a killed run leaves temporary files
        pooch.get_logger().setLevel(logging.WARNING)  # it logs every download
        try:
            arrived = pooch.retrieve(file.url, known, path.name, scratch, downloader=download)
            Path(arrived).replace(path)
        except LesionTKError as error:
            raise type(error)(f"{error} {self._by_hand()}") from error
        except ValueError:  # pooch's error for a wrong checksum
            state_of(path).unlink(missing_ok=True)
            _verify(part_of(path), path, statements)
            raise
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def _by_hand(self) -> str:
        missing = [f for f in self.source.files if not (self.directory / f.name).exists()]
        steps = "; ".join(f"{f.url} as {self.directory / f.name}" for f in missing)
        return (
            f"To fetch by hand, save {steps}; then run the command again, which verifies and "
            f"unpacks what it finds. The data set's page is {self.source.homepage}"
        )

    def _pin(self, name: str, pin: _Pin) -> None:
        if self.pins.get(name) != pin:
            self.pins[name] = pin
            text = _Pins(format=1, files=dict(sorted(self.pins.items()))).model_dump_json(indent=2)
            temporary = self.directory / f".{PINS_NAME}.new"
            temporary.write_text(text + "\n", encoding="utf-8")
            temporary.replace(self.directory / PINS_NAME)

    def _target(self, file: RemoteFile) -> Path:
        assert file.unpack is not None
        into = file.unpack.into
        return self.directory / (file.unpack.members if into == "." else into)

    def _is_unpacked(self, file: RemoteFile) -> bool:
        """Return whether the archive's unpacked content is present; raise if it changed."""
        pin = self.pins.get(file.name)
        recorded = pin.unpacked if pin else None
        if file.unpack is None or recorded is None or not (target := self._target(file)).exists():
            return False
        if (found := _measure(target)) != recorded:
            raise DataError(
                f"{target} has {found.files} files of {found.bytes} bytes; expected "
                f"{recorded.files} of {recorded.bytes}, as unpacked. Move it away and run again."
            )
        return True

    def _unpack(self, file: RemoteFile, path: Path) -> tuple[Path, _Measure | None]:
        """Return the path of the content of `file`, and its measure if it was unpacked."""
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
    """Return the numbers of files and bytes, without the hidden files of file managers."""
    files = [target] if target.is_file() else list(target.iterdir())
    sizes = [file.stat().st_size for file in files if not file.name.startswith(".")]
    return _Measure(files=len(sizes), bytes=sum(sizes))


def _read_pins(path: Path) -> dict[str, _Pin]:
    if not path.exists():
        return {}
    try:
        return _Pins.model_validate_json(path.read_bytes()).files
    except ValidationError as error:
        raise DataError(
            f"{path} cannot be read ({explain_invalid(error, _Pins)}); expected the checksums of "
            f"an earlier fetch. Move it away to pin the files anew."
        ) from error


def _verify(file: Path, path: Path, statements: tuple[_Statement, ...]) -> str:
    """Return the SHA-256 of `file`; rename a file that does not match to NAME.bad."""
    found = {"bytes": str(file.stat().st_size)}
    for kind in {"sha256", *(s.kind for s in statements if s.is_checksum)}:
        found[kind] = pooch.file_hash(str(file), alg=kind)
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
        raise DataError(
            f"{path.name} does not match: {'; '.join(wrong)}. Kept as {bad}; run again to download "
            f"it. If the publisher replaced the file, remove its entry from {PINS_NAME} first."
        )
    return found["sha256"]
