"""What cannot be written whole leaves what was there."""

from __future__ import annotations

from pathlib import Path

import pytest

from lesiontk.files.whole_files import write_whole


def test_files_are_written_together(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"before")
    write_whole({tmp_path / "a": b"one", tmp_path / "b": b"two"})
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {
        "a": b"one",
        "b": b"two",
    }


def test_a_failure_leaves_neither_file_nor_rest(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"before")
    with pytest.raises(FileNotFoundError):
        write_whole({tmp_path / "a": b"one", tmp_path / "missing" / "b": b"two"})
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a": b"before"}
