"""The official data sources as records, read from ``sources.yaml`` and checked there."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from lesiontk.errors import DataError, UsageError, suggest

PINS_NAME = "checksums.json"
LOOPBACK = ("127.0.0.1", "::1", "localhost")
_SOURCES_PATH = Path(__file__).with_name("sources.yaml")
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


def check_url(url: str, *, may_be_plain: bool = True) -> None:
    """Raise `DataError` for what is neither HTTPS nor, if `may_be_plain`, HTTP to this machine."""
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise DataError(f"URL is {url!r} ({error}); expected https:// and a host.") from error
    plain = may_be_plain and parts.scheme == "http" and parts.hostname in LOOPBACK
    if not plain and (parts.scheme != "https" or not parts.hostname):
        raise DataError(f"URL is {url!r}; expected https:// and a host.")


@dataclass(frozen=True, slots=True)
class Placement:
    """What becomes of an archive: `count` members matching `members` go to the folder `into`.

    `into` is one folder name, or ``.`` for the target folder, where `members` names one file.
    """

    members: str
    count: int
    into: str

    def __post_init__(self) -> None:
        if self.into != "." and not _PLAIN_NAME.fullmatch(self.into):
            raise DataError(f"unpack.into is {self.into!r}; expected one folder name or '.'.")
        if self.count < 1 or not self.members:
            raise DataError("unpack.members is empty or unpack.count below 1; expected members.")
        if self.into == "." and (self.count != 1 or not _PLAIN_NAME.fullmatch(self.members)):
            raise DataError(f"unpack into '.' has members {self.members!r}; expected one file.")


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """One file of a source; what the publisher does not state about it is None."""

    name: str
    url: str
    bytes: int | None = None
    md5: str | None = None
    sha256: str | None = None
    dataverse_id: int | None = None
    unpack: Placement | None = None

    def __post_init__(self) -> None:
        if not _PLAIN_NAME.fullmatch(self.name) or self.name == PINS_NAME:
            raise DataError(f"file name is {self.name!r}; expected letters, digits, '_', '-', '.'.")
        check_url(self.url)
        for value, digits in ((self.md5, 32), (self.sha256, 64)):
            if value is not None and not re.fullmatch(f"[0-9a-f]{{{digits}}}", value):
                raise DataError(
                    f"checksum of {self.name} is {value!r}; expected {digits} lower-case "
                    f"hexadecimal digits."
                )


@dataclass(frozen=True, slots=True)
class OfficialSource:
    """A published data set: whose it is, what it may be used for, and its files.

    `dataverse_api` is the URL of a Dataverse data set's JSON, which states size and MD5 of files.
    """

    name: str
    title: str
    licence: str
    citation: str
    homepage: str
    files: tuple[RemoteFile, ...]
    dataverse_api: str | None = None

    def __post_init__(self) -> None:
        names = [file.name for file in self.files]
        if not names or len(set(names)) != len(names):
            raise DataError(f"source {self.name!r} has files {names}; expected different names.")
        if self.dataverse_api is not None:
            check_url(self.dataverse_api)

    @property
    def notice(self) -> str:
        """Title, licence and citation, to be shown to whoever fetches the data."""
        return f"{self.title}\nLicence: {self.licence}\nCite: {self.citation}\nSee: {self.homepage}"


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
        DataError: the file is missing or malformed, has unknown keys, a URL that is not HTTPS
            (plain HTTP is for this machine alone) or two sources of one name.
    """
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise DataError(f"{path} cannot be read ({error}); expected a YAML file.") from error
    top = _fields(document, {"sources": list}, (), path.name)
    sources = tuple(_source_from_yaml(entry, path.name) for entry in top["sources"])
    names = [source.name for source in sources]
    if len(set(names)) != len(names):
        raise DataError(f"{path} has sources {names}; expected different names.")
    return sources


def _source_from_yaml(entry: Any, where: str) -> OfficialSource:
    kinds = dict.fromkeys(("name", "title", "licence", "citation", "homepage"), str)
    fields = _fields(
        entry, {**kinds, "files": list, "dataverse_api": str}, ("dataverse_api",), where
    )
    where = f"{where}, source {fields['name']!r}"
    files = tuple(_file_from_yaml(file, where) for file in fields.pop("files"))
    return OfficialSource(**fields, files=files)


def _file_from_yaml(entry: Any, where: str) -> RemoteFile:
    optional = {"bytes": int, "md5": str, "sha256": str, "dataverse_id": int, "unpack": dict}
    fields = _fields(entry, {"name": str, "url": str, **optional}, optional, where)
    if (unpack := fields.pop("unpack", None)) is not None:
        kinds = {"members": str, "count": int, "into": str}
        where = f"{where}, file {fields['name']!r}"
        return RemoteFile(**fields, unpack=Placement(**_fields(unpack, kinds, (), where)))
    return RemoteFile(**fields)


def _fields(
    entry: Any, kinds: Mapping[str, type], optional: Iterable[str], where: str
) -> dict[str, Any]:
    """Return a YAML mapping whose keys and types are those of `kinds`."""
    if not isinstance(entry, dict):
        raise DataError(f"{where}: received {entry!r}; expected a mapping of {', '.join(kinds)}.")
    for key, value in entry.items():
        if key not in kinds:
            raise DataError(f"{where}: unknown key {key!r}." + suggest(str(key), kinds))
        if type(value) is not kinds[key]:
            raise DataError(f"{where}: {key} is {value!r}; expected {kinds[key].__name__}.")
    if missing := set(kinds) - set(optional) - set(entry):
        raise DataError(f"{where}: {', '.join(sorted(missing))} missing; expected a value.")
    return dict(entry)
