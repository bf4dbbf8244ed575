"""Reading of a source's image files from folders and zip archives, singly or in parallel."""

from __future__ import annotations

import stat
import struct
import threading
import zipfile
import zlib
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path, PurePosixPath, PureWindowsPath
from types import TracebackType
from typing import IO, Any, Self

import numpy as np
from numpy.typing import NDArray

from lesiontk.data.decode import ImageError, RgbImage, decode_image
from lesiontk.data.picture_decoder import MAX_BYTES
from lesiontk.errors import DataError
from lesiontk.files.regular_file import resolve_path
from lesiontk.records import ImageRecord

ARCHIVE_SEPARATOR = "::"
TOLERATED_FAILURES = 3
LISTED_FAILURES = 5

_BROKEN_ZIP = (
    zipfile.BadZipFile,
    zipfile.LargeZipFile,
    zlib.error,
    struct.error,
    EOFError,
    NotImplementedError,  # a compression method that this Python lacks
    RuntimeError,  # an encrypted member
    ValueError,
    OSError,
)


class ImageReader:
    """A reader of files below `root`; zip archives stay open until it is closed.

    A location is a path below `root`, or ``archive.zip::member``. One reader may serve many
    threads: reading from archives is serialized, reading from folders is not.
    """

    def __init__(self, root: Path, *, max_bytes: int = MAX_BYTES) -> None:
        self.root = resolve_path(root, "data folder")
        self.max_bytes = max_bytes
        self._archives: dict[Path, zipfile.ZipFile] = {}
        self._lock = threading.Lock()
        if not self.root.is_dir():
            raise DataError(
                f"{root} is not a folder; expected the folder of the images: --data DIR."
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close every archive; a later read opens it again."""
        with self._lock:
            for archive in self._archives.values():
                archive.close()
            self._archives.clear()

    def read(self, location: str) -> bytes:
        """Return the bytes at `location`, at most `max_bytes` of them.

        Raises `ImageError` with the reason ``missing``, ``unreadable``, ``too_large``, or
        ``refused`` for a location that leaves the root (``..``, an absolute path, a symbolic link
        that is not a whole folder's).
        """
        outer, separator, member = location.partition(ARCHIVE_SEPARATOR)
        path = self._resolve(location, outer)
        if separator:
            return self._read_member(location, path, member)
        try:
            with path.open("rb") as stream:
                return self._read_bounded(location, stream, path.stat().st_size)
        except OSError as error:
            raise _unreadable(location, error) from error

    def _resolve(self, location: str, outer: str) -> Path:
        """Return the file of `location`, verified to be below the root."""
        windows = PureWindowsPath(outer)
        parts = PurePosixPath(outer).parts
        if not parts or outer.startswith("/") or windows.drive or windows.root or "\0" in outer:
            raise _refused(location)
        if ".." in parts or ".." in windows.parts:
            raise _refused(location)
        try:
            named = self.root / outer
            path = named.resolve()
            if not (path.is_relative_to(self.root) or self._is_linked(named.parent, path)):
                raise _refused(location)
            mode = path.stat().st_mode
        except FileNotFoundError as error:
            message = f"{location}: no such file below {self.root}. Fetch the data again."
            raise ImageError(message, location, "missing") from error
        except (OSError, RuntimeError) as error:
            raise _unreadable(location, error) from error
        if not stat.S_ISREG(mode):
            raise _unreadable(location, "it is not a regular file")
        return path

    def _is_linked(self, folder: Path, path: Path) -> bool:
        """Return whether an outside folder is linked into the root, as a whole.

        Data may be on another disk, but a table gives no access to files that the user did not
        link.
        """
        return path.parent == folder.resolve() and not self.root.is_relative_to(path.parent)

    def _read_member(self, location: str, path: Path, member: str) -> bytes:
        try:
            with self._lock:
                archive = self._archives.get(path)
                if archive is None:
                    archive = self._archives[path] = zipfile.ZipFile(path)
                entry = archive.getinfo(member)
                with archive.open(entry) as stream:
                    return self._read_bounded(location, stream, entry.file_size)
        except KeyError as error:
            message = f"{location}: no such member in the archive. Fetch the data again."
            raise ImageError(message, location, "missing") from error
        except _BROKEN_ZIP as error:
            raise _unreadable(location, error) from error

    def _read_bounded(self, location: str, stream: IO[bytes], stated: int) -> bytes:
        """Return the content, at most `max_bytes`, whatever size is stated."""
        if stated <= self.max_bytes:
            data = stream.read(self.max_bytes + 1)
            if len(data) <= self.max_bytes:
                return data
        message = (
            f"{location}: received {max(stated, self.max_bytes + 1):,} bytes or more; expected at "
            f"most {self.max_bytes:,}. Scale the image down, or raise the limit."
        )
        raise ImageError(message, location, "too_large")


def _refused(location: str) -> ImageError:
    message = (
        f"{location!r} leaves the folder of the data; expected a relative path below it. "
        "Correct the table, or copy the files there instead of linking them."
    )
    return ImageError(message, location, "refused")


def _unreadable(location: str, why: object) -> ImageError:
    message = f"{location} cannot be read: {why}. Check the file's permissions or fetch it again."
    return ImageError(message, location, "unreadable")


def decode_many(
    reader: ImageReader,
    records: Sequence[ImageRecord],
    *,
    workers: int,
    transform: Callable[[RgbImage], NDArray[Any]] | None = None,
    advance: Callable[[int], None] | None = None,
    max_failures: float = 0.01,
    draft_size: int | None = None,
) -> Generator[tuple[int, NDArray[Any] | ImageError], None, None]:
    """Yield (index, pixels or error) of every record in order, decoded by `workers` threads.

    Pixels are uint8 [H, W, 3] RGB, or the result of `transform` in the worker's thread. At most ``2
    * workers`` images are in memory at a time. `advance(1)` is called after each record.

    A broken image is yielded as its `ImageError`. If all images or more than ``max(3, max_failures
    * len(records))`` are broken, `DataError` counts them and lists the first five. With
    ``max_failures=0`` the first broken image raises. Any other error, also of `transform`, is
    raised. Closing the generator cancels the images that are not started.
    """
    if workers < 1:
        raise ValueError(f"workers is {workers}; expected 1 or more")
    if not 0 <= max_failures <= 1:
        raise ValueError(f"max_failures is {max_failures}; expected a fraction, 0 to 1")
    tolerated = max(TOLERATED_FAILURES, int(max_failures * len(records))) if max_failures else 0

    def work(record: ImageRecord) -> NDArray[Any] | ImageError:
        try:
            data = reader.read(record.location)
            pixels = decode_image(data, name=record.location, draft_size=draft_size)
        except ImageError as error:
            return error
        return np.asarray(transform(pixels)) if transform is not None else pixels

    failures: list[ImageError] = []
    waiting: deque[Future[NDArray[Any] | ImageError]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="decode")
    try:
        for index in range(len(records)):
            while len(waiting) < 2 * workers and index + len(waiting) < len(records):
                waiting.append(pool.submit(work, records[index + len(waiting)]))
            result = waiting.popleft().result()
            if isinstance(result, ImageError):
                failures.append(result)
                if len(failures) > tolerated or len(failures) == len(records):
                    raise _too_many(failures, index + 1, len(records))
            if advance is not None:
                advance(1)
            yield index, result
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def decode_all(
    reader: ImageReader,
    records: Sequence[ImageRecord],
    *,
    workers: int,
    transform: Callable[[RgbImage], NDArray[Any]],
    advance: Callable[[int], None] | None = None,
) -> Iterator[NDArray[Any]]:
    """Yield what `transform` returns for each record, in order; the first broken image raises."""
    for _, result in decode_many(
        reader, records, workers=workers, transform=transform, advance=advance, max_failures=0
    ):
        assert not isinstance(result, ImageError)  # `decode_many` has raised
        yield result


def _too_many(failures: Sequence[ImageError], seen: int, total: int) -> DataError:
    listed = "".join(f"\n  {error.reason}: {error}" for error in failures[:LISTED_FAILURES])
    return DataError(
        f"{len(failures)} of the first {seen} images (of {total}) cannot be read; expected almost "
        f"all to be intact. Fetch the data again, or remove the files from the table:{listed}"
    )
