"""Records with their documents, for files, manifests and module boundaries."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping
from dataclasses import fields
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

from pydantic import ConfigDict, GetCoreSchemaHandler, TypeAdapter, ValidationError
from pydantic_core import CoreSchema, core_schema

from lesiontk.errors import DataError, show_value

R = TypeVar("R", bound="Record")


class Record:
    """Base of frozen dataclasses whose fields are plain values, other records, or lists of these.

    The document has each field by its name, then the properties in `DERIVED`, which are computed
    again on reading. Unknown keys and values of another type are errors. `SCHEMA` is the version of
    the document; raise it when a field's meaning changes. A `SPARSE` document has no key for None.

    >>> from dataclasses import dataclass
    >>> @dataclass(frozen=True, slots=True)
    ... class Size(Record):
    ...     width: int
    ...     height: int
    >>> Size.from_document(Size(600, 450).to_document())
    Size(width=600, height=450)
    """

    __slots__ = ()
    __pydantic_config__ = ConfigDict(extra="forbid")
    SCHEMA: ClassVar[int] = 1
    DERIVED: ClassVar[tuple[str, ...]] = ()
    SPARSE: ClassVar[bool] = False

    def to_document(self) -> dict[str, Any]:
        """Return the record as a JSON document."""
        derived = {name: getattr(self, name) for name in self.DERIVED}
        return {
            name: plain_value(value)
            for name, value in {**self.field_values(), **derived}.items()
            if value is not None or not self.SPARSE
        }

    def field_values(self) -> dict[str, Any]:
        """Return the fields by name, unconverted, for a record that extends this one."""
        return {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]

    @classmethod
    def from_document(cls, document: object) -> Self:
        """Return the record of a document. Raises `DataError` with the wrong key."""
        try:
            record: Self = _adapter(cls).validate_python(document)  # type: ignore[arg-type]
        except ValidationError as error:
            fault = error.errors(include_url=False)[0]
            where = ".".join(str(part) for part in fault["loc"]) or "it"
            received = "missing" if fault["type"] == "missing" else show_value(fault["input"])
            raise DataError(
                f"the record {cls.__name__} cannot be read: {where} is {received} "
                f"({fault['msg']}). Another version of lesiontk may have written it; run the "
                "command that made it again."
            ) from error
        return record

    @classmethod
    def upgrade(cls, document: dict[str, Any]) -> dict[str, Any]:
        """Return the fields of a document; overridden to rename the keys of older documents."""
        return document

    @classmethod
    def __get_pydantic_core_schema__(
        cls, source: type[Any], handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        """Return the schema with which pydantic reads each record, also nested ones, by
        `upgrade`."""
        inner: dict[str, Any] = {**handler.resolve_ref_schema(handler(source))}
        reference = inner.pop("ref", None)  # otherwise further fields of this type would not use it

        def prepare(value: Any) -> Any:
            if not isinstance(value, Mapping):
                return value
            return cls.upgrade({k: v for k, v in value.items() if k not in cls.DERIVED})

        return core_schema.no_info_before_validator_function(prepare, inner, ref=reference)


def write_record(path: Path, record: Record) -> None:
    """Write a record's document as JSON. Raises for NaN and infinity, which are not JSON."""
    path.write_text(json.dumps(record.to_document(), indent=1, allow_nan=False) + "\n")


def write_table(path: Path, record: type[Record], rows: Iterable[Record]) -> None:
    """Write records of one type as CSV, a column for each field; None is an empty cell."""
    names = [field.name for field in fields(record)]  # type: ignore[arg-type]
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(row.field_values() for row in rows)


def read_table(path: Path, record: type[R]) -> list[R]:
    """Return the records of a CSV that `write_table` wrote."""
    with path.open(newline="") as stream:
        return [
            record.from_document({name: cell or None for name, cell in row.items()})
            for row in csv.DictReader(stream)
        ]


def plain_value(value: Any) -> Any:
    """Return the JSON form of records, mappings, lists and enumerations within a value."""
    if isinstance(value, Record):
        return value.to_document()
    if isinstance(value, Mapping):
        return {name: plain_value(entry) for name, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_value(entry) for entry in value]
    return value.value if isinstance(value, StrEnum) else value


@cache
def _adapter(record: type[Any]) -> TypeAdapter[Any]:
    return TypeAdapter(record)
