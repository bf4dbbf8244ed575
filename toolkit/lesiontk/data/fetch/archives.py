"""Extraction of untrusted zip archives.

Only a member's base name is used, so an archive cannot choose a folder. Members are written to a
temporary folder beside the target, and one rename publishes it: after an interruption the target is
either complete or absent.
"""

from __future__ import annotations

import logging
import shutil
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from glob import escape
from pathlib import Path, PurePosixPath

from lesiontk.errors import DataError, MissingRequirementError

logger = logging.getLogger(__name__)

ProgressCallback = Callable[[str, int, int | None], None]
"""``progress(description, done_bytes, total_bytes)``; the total is None where it is unknown."""

_CHUNK_BYTES = 1 << 20
_BROKEN = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    RuntimeError,
    ValueError,
    struct.error,
    OSError,
)
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_END_BYTES = 22  # the end record, without its comment
_ENCRYPTED = 0x1 | 0x40 | 0x2000  # member, strong encryption, masked headers (APPNOTE 4.4.4)


@dataclass(frozen=True, slots=True)
class UnpackLimits:
    """The limits of an archive; `ratio` is uncompressed over compressed bytes.

    It applies above `ratio_from_bytes`, because short tables compress well.
    """

    members: int = 100_000
    member_bytes: int = 256 << 20
    total_bytes: int = 32 << 30
    ratio: float = 100.0
    ratio_from_bytes: int = 1 << 20


DEFAULT_LIMITS = UnpackLimits()


@dataclass(frozen=True, slots=True)
class UnpackedArchive:
    """An extracted archive: `path` is the folder, or the file of `unpack_file`.

    `left_out` lists the members that the pattern did not select.
    """

    path: Path
    files: int
    bytes: int
    left_out: tuple[str, ...] = ()


def free_disk_bytes(folder: Path) -> int:
    """Return the free bytes of the disk of `folder`."""
    return shutil.disk_usage(folder).free


def check_zip(archive: Path) -> None:
    """Raise `DataError` unless `archive` has a readable table of contents."""
    with _open_zip(archive):
        pass


def unpack_folder(
    archive: Path,
    folder: Path,
    limits: UnpackLimits = DEFAULT_LIMITS,
    progress: ProgressCallback | None = None,
    free_bytes: Callable[[Path], int] = free_disk_bytes,
    *,
    members: str = "*",
    count: int | None = None,
) -> UnpackedArchive:
    """Unpack the members whose base names match the pattern `members` into the new `folder`.

    A `folder` that already contains exactly these files (names, sizes, CRC-32) is not changed.

    Raises:
        DataError: the archive is missing, corrupt, encrypted, exceeds a limit or contains an unsafe
            member; not `count` members match; `folder` exists with other content.
        MissingRequirementError: the disk is too small.
    """
    with _open_zip(archive) as opened:
        chosen, left_out = _select(opened, archive, members, count, limits)
        total = sum(info.file_size for info in chosen.values())
        unpacked = UnpackedArchive(folder, len(chosen), total, left_out)
        if folder.exists() and not folder.is_dir():
            raise DataError(f"{folder} is a file; expected a folder or nothing. Move it away.")
        if folder.is_dir() and any(folder.iterdir()):
            _check_same(chosen, {path.name: path for path in folder.iterdir()}, archive, folder)
            return unpacked
        with _staging(folder) as staging:
            _write(opened, archive, chosen, staging, limits, progress, free_bytes)
            if folder.is_dir():  # empty; on some systems a rename does not replace it
                folder.rmdir()
            staging.rename(folder)
    logger.info("unpacked %d files of %s; left out %d", len(chosen), archive.name, len(left_out))
    return unpacked


def unpack_file(
    archive: Path,
    target: Path,
    limits: UnpackLimits = DEFAULT_LIMITS,
    progress: ProgressCallback | None = None,
    free_bytes: Callable[[Path], int] = free_disk_bytes,
) -> UnpackedArchive:
    """Unpack the one member whose base name is that of `target` as `target`.

    Raises the errors of `unpack_folder`, and `DataError` if a different file exists.
    """
    with _open_zip(archive) as opened:
        chosen, left_out = _select(opened, archive, escape(target.name), 1, limits)
        if target.exists():
            _check_same(chosen, {target.name: target}, archive, target)
        else:
            with _staging(target) as staging:
                _write(opened, archive, chosen, staging, limits, progress, free_bytes)
                (staging / target.name).replace(target)
    return UnpackedArchive(target, 1, chosen[target.name].file_size, left_out)


@contextmanager
def _open_zip(archive: Path) -> Iterator[zipfile.ZipFile]:
    try:
        opened = zipfile.ZipFile(archive)
    except FileNotFoundError as error:
        raise DataError(f"{archive} does not exist; expected a zip archive.") from error
    except _BROKEN as error:
        raise _corrupt(archive, error) from error
    with opened:
        _check_member_count(opened, archive)
        yield opened


def _check_member_count(opened: zipfile.ZipFile, archive: Path) -> None:
    """Compare with the end record (APPNOTE 4.3.16): `zipfile` drops members silently."""
    with archive.open("rb") as stream:
        stream.seek(-_END_BYTES - len(opened.comment), 2)
        end = stream.read(_END_BYTES)
    found, stated = len(opened.infolist()), int.from_bytes(end[10:12], "little")
    zip64 = stated == 0xFFFF
    if not end.startswith(b"PK\5\6") or (not zip64 and found % (1 << 16) != stated):
        raise _corrupt(archive, ValueError(f"{found} members listed, {stated} stated"))


def _read_member(opened: zipfile.ZipFile, info: zipfile.ZipInfo, archive: Path) -> Iterator[bytes]:
    try:
        with opened.open(info) as source:
            while chunk := source.read(_CHUNK_BYTES):
                yield chunk
    except _BROKEN as error:
        raise _corrupt(archive, error) from error


def _corrupt(archive: Path, error: Exception) -> DataError:
    return DataError(
        f"{archive} cannot be read ({error}); expected an intact zip archive. Move it away and "
        "fetch it again."
    )


@contextmanager
def _staging(target: Path) -> Iterator[Path]:
    """Yield an empty temporary folder beside `target`; remove what is left of it at the end."""
    staging = target.with_name(f".{target.name}.unpacking")
    if staging.exists():
        logger.info("removing %s, left by an interrupted unpacking", staging)
        shutil.rmtree(staging)
    staging.mkdir(parents=True)
    try:
        yield staging
    finally:
        if staging.exists():
            shutil.rmtree(staging)


def _select(
    opened: zipfile.ZipFile, archive: Path, pattern: str, count: int | None, limits: UnpackLimits
) -> tuple[dict[str, zipfile.ZipInfo], tuple[str, ...]]:
    """Return base name -> chosen member, and the names of the others; every member is checked."""
    infos = opened.infolist()
    if len(infos) > limits.members:
        raise DataError(
            f"{archive} has {len(infos)} members; expected at most {limits.members}. Not unpacked."
        )
    names: set[str] = set()
    for info in infos:
        problem = _problem(info, limits)
        if _folded(info.orig_filename) in names:
            problem = "is a duplicate name"
        if problem:
            raise DataError(
                f"{archive}: member {info.orig_filename!r} {problem}. Not unpacked: fetch the "
                f"archive again from its official source."
            )
        names.add(_folded(info.orig_filename))
    files = [info for info in infos if not info.is_dir()]
    _check_totals(files, archive, limits)
    return _choose(files, archive, pattern, count)


def _choose(
    files: Iterable[zipfile.ZipInfo], archive: Path, pattern: str, count: int | None
) -> tuple[dict[str, zipfile.ZipInfo], tuple[str, ...]]:
    chosen: dict[str, zipfile.ZipInfo] = {}
    left_out: list[str] = []
    folded: set[str] = set()
    for info in files:
        base = PurePosixPath(info.filename).name
        if not fnmatchcase(base, pattern):
            left_out.append(info.filename)
        elif _folded(base) in folded:
            raise DataError(f"{archive}: two members are called {base!r}; expected one.")
        else:
            folded.add(_folded(base))
            chosen[base] = info
    if not chosen or (count is not None and len(chosen) != count):
        raise DataError(
            f"{archive} has {len(chosen)} members that match {pattern!r}; expected "
            f"{'one or more' if count is None else count}. It is not the published archive."
        )
    return chosen, tuple(left_out)


def _folded(name: str) -> str:
    """Return a name without case: on macOS and Windows case does not distinguish files."""
    return name.rstrip("/").casefold()


def _problem(info: zipfile.ZipInfo, limits: UnpackLimits) -> str:
    """Return why a member is unsafe, or an empty text. `orig_filename` is the name as stored."""
    name = info.orig_filename
    kind = stat.S_IFMT(info.external_attr >> 16)
    if not name.strip("/") or any(ord(character) < 32 for character in name):
        return "has an empty name or a control character"
    if name.startswith("/") or ".." in name.split("/"):
        return "leaves the target folder; expected a relative path without '..'"
    if "\\" in name or ":" in name:
        return "has a backslash or a drive letter in its name; expected forward slashes"
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a link or a device; expected files and folders"
    if info.flag_bits & _ENCRYPTED:
        return "is encrypted; expected an archive without a password"
    if info.compress_type not in _METHODS:
        return f"is compressed with method {info.compress_type}; expected stored or deflated"
    if info.file_size > limits.member_bytes:
        return f"has {info.file_size} bytes; expected at most {limits.member_bytes}"
    if _is_bomb(info.file_size, info.compress_size, limits):
        return f"expands more than {limits.ratio:.0f}-fold, like a decompression bomb"
    return ""


def _is_bomb(size: int, compressed: int, limits: UnpackLimits) -> bool:
    return size > limits.ratio_from_bytes and size > limits.ratio * max(compressed, 1)


def _check_totals(files: list[zipfile.ZipInfo], archive: Path, limits: UnpackLimits) -> None:
    total = sum(info.file_size for info in files)
    if total > limits.total_bytes:
        raise DataError(
            f"{archive} states {total} bytes; expected at most {limits.total_bytes}. Not unpacked."
        )
    # Members that share their compressed bytes multiply them (Fifield, WOOT 2019).
    compressed, stored = sum(info.compress_size for info in files), archive.stat().st_size
    if compressed > stored:
        raise DataError(
            f"{archive} states {compressed} compressed bytes but has {stored}: its members "
            "overlap. Not unpacked."
        )


def _write(
    opened: zipfile.ZipFile,
    archive: Path,
    chosen: dict[str, zipfile.ZipInfo],
    staging: Path,
    limits: UnpackLimits,
    progress: ProgressCallback | None,
    free_bytes: Callable[[Path], int],
) -> None:
    """Write the members and count the bytes written, because headers can be wrong."""
    total, done = sum(info.file_size for info in chosen.values()), 0
    if total > (free := free_bytes(staging)):
        raise MissingRequirementError(
            f"unpacking {archive.name} needs {total} bytes and {staging.parent} has {free} free; "
            f"make room or choose another folder."
        )
    archive_bytes = archive.stat().st_size
    for name, info in chosen.items():
        written = 0
        with (staging / name).open("xb") as out:
            for chunk in _read_member(opened, info, archive):
                written, done = written + len(chunk), done + len(chunk)
                if (
                    written > limits.member_bytes
                    or done > limits.total_bytes
                    or _is_bomb(done, archive_bytes, limits)
                ):
                    raise DataError(
                        f"{archive}: {name!r} exceeds the limits when unpacked ({written} bytes so "
                        f"far, {done} in all). Not unpacked."
                    )
                out.write(chunk)
        if progress is not None:
            progress(f"unpack {archive.name}", done, total)


def _check_same(
    chosen: dict[str, zipfile.ZipInfo], present: dict[str, Path], archive: Path, folder: Path
) -> None:
    """Raise `DataError` unless `present` has the archive's content."""
    unexpected = {name for name in set(present) - set(chosen) if not name.startswith(".")}
    wrong = sorted((set(chosen) - set(present)) | unexpected) or [
        name for name, info in chosen.items() if not _is_same(info, present[name])
    ]
    if wrong:
        raise DataError(
            f"{folder} exists and differs from {archive.name}, first in {wrong[0]!r}; expected "
            f"nothing there or the same files. Move it away and run again."
        )


def _is_same(info: zipfile.ZipInfo, path: Path) -> bool:
    if path.is_symlink() or not path.is_file() or path.stat().st_size != info.file_size:
        return False
    crc = 0
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            crc = zlib.crc32(chunk, crc)
    return crc == info.CRC
