"""A record gives back what it wrote, nested records included, and refuses any other document."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar

import pytest

from lesiontk.document import Record, read_table, write_table
from lesiontk.errors import DataError


class Colour(StrEnum):
    RED = "red"


@dataclass(frozen=True, slots=True)
class Part(Record):
    DERIVED: ClassVar[tuple[str, ...]] = ("double",)

    size: int
    colour: Colour = Colour.RED

    def __post_init__(self) -> None:
        if self.size < 0:
            raise ValueError(f"size is {self.size}; expected 0 or more")

    @property
    def double(self) -> int:
        return 2 * self.size


@dataclass(frozen=True, slots=True)
class Whole(Record):
    first: Part
    second: Part
    listed: tuple[Part | None, ...]
    named: Mapping[str, Part]

    @classmethod
    def upgrade(cls, document: dict[str, Any]) -> dict[str, Any]:
        renamed = {"first": document["begin"]} if "begin" in document else {}
        return {**{k: v for k, v in document.items() if k != "begin"}, **renamed}


WHOLE = Whole(Part(1), Part(2), (Part(3), None), {"a": Part(4)})


def test_a_document_gives_its_record_back() -> None:
    document = json.loads(json.dumps(WHOLE.to_document()))
    assert document["named"] == {"a": {"size": 4, "colour": "red", "double": 8}}
    assert Whole.from_document(document) == WHOLE


@pytest.mark.parametrize("place", ["first", "second"])
def test_what_is_derived_is_computed_again(place: str) -> None:
    """Both fields of one type: pydantic reads the second by reference to the first."""
    document = WHOLE.to_document()
    document[place]["double"] = 77
    assert Whole.from_document(document) == WHOLE


def test_an_older_document_is_upgraded() -> None:
    document = WHOLE.to_document()
    document["begin"] = document.pop("first")
    assert Whole.from_document(document) == WHOLE


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"third": 3}, "Whole cannot be read: third is 3 .*Another version of lesiontk"),
        ({"second": {"size": 1, "odd": 2}}, "second.odd is 2"),
        ({"second": {"colour": "red"}}, "second.size is missing"),
        ({"named": {"a": {"size": "many"}}}, "named.a.size is 'many'"),
        ({"listed": [{"size": -1}]}, "size is -1; expected 0 or more"),
        ({"first": {"size": 1, "colour": "blue"}}, "first.colour is 'blue'"),
    ],
)
def test_another_document_is_refused_by_name(change: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=said):
        Whole.from_document({**WHOLE.to_document(), **change})


@pytest.mark.parametrize("document", [None, 3, [], "text"])
def test_what_is_no_document_is_refused(document: object) -> None:
    with pytest.raises(DataError, match="Whole cannot be read"):
        Whole.from_document(document)


@dataclass(frozen=True, slots=True)
class Row(Record):
    name: str
    number: int
    value: float | None


def test_a_table_is_read_as_it_was_written(tmp_path: Path) -> None:
    rows = [Row("a, b", 1, 0.1 + 0.2), Row("c", -2, None)]
    write_table(tmp_path / "rows.csv", Row, rows)
    assert (tmp_path / "rows.csv").read_text().splitlines()[0] == "name,number,value"
    assert read_table(tmp_path / "rows.csv", Row) == rows
    write_table(tmp_path / "none.csv", Row, [])
    assert read_table(tmp_path / "none.csv", Row) == []
