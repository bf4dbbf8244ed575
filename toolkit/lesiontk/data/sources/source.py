"""The interface of a data source and the table that it returns."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, final

from lesiontk.errors import DataError
from lesiontk.records import ImageRecord

NOT_STATED = "not stated"


@dataclass(frozen=True, slots=True)
class SourceInfo:
    """A source's name, description and expected folder layout."""

    name: str
    description: str
    layout: str


@dataclass(frozen=True, slots=True)
class SourceTable:
    """A source's images and their metadata.

    `records` are the images that were found, `missing` the ids that the table lists without a file,
    `unlisted` the number of image files that the table does not list. `lesion_ids_known` is True if
    every record has a lesion id or a patient id, which also groups a lesion's images.
    `metadata_sha256` is the hash of the source's tables.
    """

    records: tuple[ImageRecord, ...]
    missing: tuple[str, ...]
    unlisted: int
    licence: str
    citation: str
    lesion_ids_known: bool
    metadata_sha256: str

    def __post_init__(self) -> None:
        if not self.records:
            listed = ", ".join(self.missing[:3]) or "none"
            others = f"among the {self.unlisted} images there" if self.unlisted else "there"
            raise DataError(
                f"the table lists {len(self.missing)} image{'s' * (len(self.missing) != 1)} "
                f"({listed}) and no matching file was found {others}; expected each id to be the "
                "name of an image file. Put the images beside the table."
            )
        counts = Counter([record.image_id for record in self.records] + list(self.missing))
        image_id, count = counts.most_common(1)[0]
        if count > 1:
            raise DataError(f"image id {image_id!r} is used for {count} images; expected one.")


class Source(ABC):
    """A reader of one folder layout. The public methods check, the hooks vary."""

    info: ClassVar[SourceInfo]

    @final
    def detect(self, path: Path) -> bool:
        """Return whether the folder `path` has this source's layout."""
        return path.is_dir() and self._detect(path)

    @final
    def read(self, path: Path) -> SourceTable:
        """Return every image below `path`; locations are relative to it.

        Raises `DataError` if the folder does not exist, lacks the layout or has a broken table.
        """
        if not path.is_dir():
            what = "is a file" if path.is_file() else "does not exist"
            raise DataError(
                f"{path} {what}; expected the folder of a {self.info.name} data set: "
                f"{self.info.layout}. Give that folder."
            )
        try:
            return self._read(path)
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error}. Check its permissions.") from error

    @abstractmethod
    def _detect(self, path: Path) -> bool: ...

    @abstractmethod
    def _read(self, path: Path) -> SourceTable: ...

    def _layout_error(self, path: Path, found: str, remedy: str = "") -> DataError:
        expected = f"expected the layout of {self.info.name}: {self.info.layout}. {remedy}"
        return DataError(f"{path} {found}; {expected.rstrip()}")
