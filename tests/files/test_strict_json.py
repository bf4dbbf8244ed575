"""JSON that somebody edited is an error that names it, never a crash."""

from __future__ import annotations

from pathlib import Path

import pytest

from lesiontk.errors import DataError
from lesiontk.files.strict_json import parse_json, read_json


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "is not valid JSON"),
        ("{", "is not valid JSON"),
        (b"\xff{}", "is not valid JSON"),
        ("[" * 200_000, "is nested too deeply"),
        ('{"a":' * 200_000, "is nested too deeply"),
        ("9" * 5000, "is not valid JSON"),
        ('{"threshold": NaN}', ".*NaN is not a finite number"),
        ("[-Infinity]", ".*-Infinity is not a finite number"),
        (r'"\ud800"', "is not valid JSON: .*surrogates not allowed"),
        (r'{"\udc00x": 1}', "is not valid JSON: .*surrogates not allowed"),
    ],
)
def test_what_is_no_plain_json_is_an_error_that_names_it(text: str | bytes, reason: str) -> None:
    with pytest.raises(DataError, match=f"^the note {reason}") as caught:
        parse_json(text, "the note")
    assert len(str(caught.value)) < 300


def test_plain_json_is_read() -> None:
    assert parse_json(b'\xef\xbb\xbf{"a": [1, 2.5, null, "\\ud83d\\ude00"]}', "it") == {
        "a": [1, 2.5, None, "\U0001f600"]
    }


def test_a_file_is_bounded_and_named(tmp_path: Path) -> None:
    path = tmp_path / "note.json"
    path.write_text("[1, 2]")
    assert read_json(path, "the note") == [1, 2]
    with pytest.raises(DataError, match=r"the note .*note.json has 6 bytes; expected at most 5"):
        read_json(path, "the note", limit=5)
    path.write_text("[1, 2")
    with pytest.raises(DataError, match=r"the note .*note.json is not valid JSON"):
        read_json(path, "the note")
    with pytest.raises(DataError, match="is a folder"):
        read_json(tmp_path, "the note")
