"""Records of the official data sources, read from ``sources.yaml``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from lesiontk.errors import DataError, UsageError, suggest
from lesiontk.recipe.reading import explain_invalid

PINS_NAME = "checksums.json"
LOOPBACK = ("127.0.0.1", "::1", "localhost")
_SOURCES_PATH = Path(__file__).with_name("sources.yaml")
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


def check_url(url: str, *, allow_http: bool = True) -> str:
    """Return `url` if it is HTTPS or, where `allow_http`, HTTP to this machine.

    Raises `ValueError` for any other URL.
    """
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise ValueError(f"URL is {url!r} ({error}); expected https:// and a host") from error
    plain = allow_http and parts.scheme == "http" and parts.hostname in LOOPBACK
    if not plain and (parts.scheme != "https" or not parts.hostname):
        raise ValueError(f"URL is {url!r}; expected https:// and a host")
    return url


class StrictModel(BaseModel):
    """A document without unknown keys, whose values have the types of its fields."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Placement(StrictModel):
    """The extraction of an archive: `count` members matching `members` go to the folder `into`.

    `into` is one folder name, or ``.`` for the target folder, where `members` names one file.
    """

    members: str = Field(min_length=1)
    count: int = Field(ge=1)
    into: str

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.into != "." and not _PLAIN_NAME.fullmatch(self.into):
            raise ValueError(f"into is {self.into!r}; expected one folder name or '.'")
        if self.into == "." and (self.count != 1 or not _PLAIN_NAME.fullmatch(self.members)):
            raise ValueError(f"members is {self.members!r} into '.'; expected one file")
        return self


class RemoteFile(StrictModel):
    """One file of a source; a field that the publisher does not state is None."""

    name: str
    url: str
    bytes: int | None = None
    md5: str | None = None
    sha256: str | None = None
    unpack: Placement | None = None

    _checked_url = field_validator("url")(check_url)

    @field_validator("name")
    @classmethod
    def _check_name(cls, name: str) -> str:
        if not _PLAIN_NAME.fullmatch(name) or name == PINS_NAME:
            raise ValueError(f"file name is {name!r}; expected letters, digits, '_', '-', '.'")
        return name

    @field_validator("md5", "sha256")
    @classmethod
    def _check_digits(cls, value: str | None, info: ValidationInfo) -> str | None:
        digits = 32 if info.field_name == "md5" else 64
        if value is not None and not re.fullmatch(f"[0-9a-f]{{{digits}}}", value):
            raise ValueError(f"expected {digits} lower-case hexadecimal digits")
        return value


class OfficialSource(StrictModel):
    """A published data set: citation, licence and files."""

    name: str
    title: str
    licence: str
    citation: str
    homepage: str
    files: tuple[RemoteFile, ...] = Field(strict=False)

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        _check_different([file.name for file in self.files], f"files of source {self.name!r}")
        return self

    @property
    def notice(self) -> str:
        """Title, licence and citation, shown when the data are fetched."""
        return f"{self.title}\nLicence: {self.licence}\nCite: {self.citation}\nSee: {self.homepage}"


class _SourceList(StrictModel):
    sources: tuple[OfficialSource, ...] = Field(strict=False)

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        _check_different([source.name for source in self.sources], "sources")
        return self


def _check_different(names: list[str], what: str) -> None:
    if not names or len(set(names)) != len(names):
        raise ValueError(f"{what} are {names}; expected one or more of different names")


def list_official_sources() -> tuple[OfficialSource, ...]:
    """Return the sources that come with lesiontk."""
    return read_official_sources(_SOURCES_PATH)


def find_official_source(name: str) -> OfficialSource:
    """Return the source called `name`, or raise `UsageError` with the nearest known name."""
    sources = {source.name: source for source in list_official_sources()}
    if name not in sources:
        raise UsageError(
            f"unknown data source {name!r}; known are {', '.join(sources)}."
            + suggest(name, sources)
        )
    return sources[name]


def read_official_sources(path: Path) -> tuple[OfficialSource, ...]:
    """Read a file of sources, in the form of ``sources.yaml``.

    Raises:
        DataError: the file is missing or malformed, or contains unknown keys, duplicate names or a
            URL that is neither HTTPS nor HTTP to loopback.
    """
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
        return _SourceList.model_validate(document).sources
    except ValidationError as error:
        raise DataError(f"{path}: {explain_invalid(error, _SourceList)}") from error
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise DataError(f"{path} cannot be read ({error}); expected a YAML file.") from error
