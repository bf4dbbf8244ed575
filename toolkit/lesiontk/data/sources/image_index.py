"""An index of image files by name below a folder and inside its zip archives."""

from __future__ import annotations

import filecmp
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from lesiontk.data.image_container import DICOM_SUFFIXES, FORMAT_FROM_SUFFIX
from lesiontk.data.reader import ARCHIVE_SEPARATOR
from lesiontk.data.sources.files import list_entries
from lesiontk.data.sources.zip_members import checksums, list_members
from lesiontk.errors import DataError


@dataclass(frozen=True, slots=True)
class ImageIndex:
    """Every image below `root`: locations by file stem, and all of them in order."""

    root: Path
    locations: tuple[str, ...]
    by_stem: dict[str, tuple[str, ...]]

    def find(self, stem: str, rank: Callable[[str], int] = lambda location: 0) -> str | None:
        """Return the location of the image called `stem`, or None.

        Among several, the lowest `rank` is preferred, then a plain file to a member of an archive.
        Raises `DataError` if the remaining ones differ in their bytes.
        """
        candidates = self.by_stem.get(stem, ())
        if len(candidates) < 2:
            return candidates[0] if candidates else None

        def order(location: str) -> tuple[bool, int]:
            return ARCHIVE_SEPARATOR in location, rank(location)

        best = min(map(order, candidates))
        tied = [location for location in candidates if order(location) == best]
        if not all(self._is_same_file(tied[0], other) for other in tied[1:]):
            raise DataError(
                f"{stem} is the name of {len(tied)} different images below {self.root}: "
                f"{', '.join(tied[:3])}; expected one. Remove the others from the folder."
            )
        return tied[0]

    def contains(self, location: str) -> bool:
        """Return whether there is an image at exactly this location."""
        return location in self.by_stem.get(stem_of(location), ())

    def count_others(self, covered: set[str]) -> int:
        """Return how many images are not among the locations `covered`."""
        return sum(location not in covered for location in self.locations)

    def _is_same_file(self, one: str, other: str) -> bool:
        if ARCHIVE_SEPARATOR in one:
            return self._stated(one) == self._stated(other)
        return filecmp.cmp(self.root / one, self.root / other, shallow=False)

    def _stated(self, location: str) -> tuple[int, int]:
        archive, _, member = location.partition(ARCHIVE_SEPARATOR)
        return checksums(self.root / archive)[member]


def index_images(root: Path, *, archives: bool = True) -> ImageIndex:
    """List the images below `root` by their suffix, as `list_entries` finds them.

    A pipe or a device with the name of an image is listed, too, so that reading it raises an error.
    Raises `DataError` for a name that is not text, and for an archive that cannot be opened.
    """
    locations = sorted(_locate_images(root, archives))
    by_stem: dict[str, list[str]] = defaultdict(list)
    for location in locations:
        by_stem[stem_of(location)].append(location)
    return ImageIndex(
        root, tuple(locations), {stem: tuple(found) for stem, found in by_stem.items()}
    )


def stem_of(name: str) -> str:
    """Return the file name of a location or path without its folder and image suffix."""
    return without_suffix(PurePosixPath(name.rpartition(ARCHIVE_SEPARATOR)[2]).name)


def unique_ids(names: Sequence[str]) -> list[str]:
    """Return an id for each path: its stem, or for equal stems the path without suffix."""
    stems = [stem_of(name) for name in names]
    counts = Counter(stems)
    return [
        stem if counts[stem] == 1 else without_suffix(name)
        for name, stem in zip(names, stems, strict=True)
    ]


def without_suffix(name: str) -> str:
    """Return a path without its image suffix; any other ending belongs to the name."""
    return name.removesuffix(_image_suffix(name))


def is_image_name(name: str) -> bool:
    """Return whether a file name has an image suffix."""
    return bool(_image_suffix(name)) and not PurePosixPath(name).name.startswith(".")


def _image_suffix(name: str) -> str:
    suffix = PurePosixPath(name).suffix
    return suffix if suffix.lower() in {*FORMAT_FROM_SUFFIX, *DICOM_SUFFIXES} else ""


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _locate_images(root: Path, archives: bool) -> Iterator[str]:
    for path in list_entries(root):
        location = path.relative_to(root).as_posix()
        if is_image_name(path.name):
            if not _is_text(location):
                raise DataError(
                    f"{os.fsencode(location)!r} is the name of an image but not UTF-8; "
                    "expected a name in UTF-8. Rename the file or its folder."
                )
            yield location
        elif archives and path.name.lower().endswith(".zip") and path.is_file():
            for member in list_members(path):
                if is_image_name(member):
                    yield f"{location}{ARCHIVE_SEPARATOR}{member}"
