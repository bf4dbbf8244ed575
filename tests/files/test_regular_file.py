"""A path is opened only if it is a regular file; everything else is refused by name, at once."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from lesiontk.errors import DataError
from lesiontk.files.regular_file import (
    check_regular,
    open_regular,
    read_regular,
    read_regular_text,
    resolve_path,
)


def make_pipe(path: Path) -> None:
    os.mkfifo(path)


def make_folder(path: Path) -> None:
    path.mkdir()


def make_loop(path: Path) -> None:
    path.symlink_to(path)


def make_link_to_pipe(path: Path) -> None:
    os.mkfifo(path.with_name("pipe"))
    path.symlink_to("pipe")


def make_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def make_dangling_link(path: Path) -> None:
    path.symlink_to("nowhere")


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(path))  # an absolute name may be too long for a socket


READERS: dict[str, Callable[[Path], object]] = {
    "check": lambda path: check_regular(path, "recipe"),
    "open": lambda path: open_regular(path, "recipe"),
    "read": lambda path: read_regular(path, "recipe", limit=10),
    "text": lambda path: read_regular_text(path, "recipe", limit=10),
}


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (make_pipe, "is a named pipe; expected a regular file"),
        (make_link_to_pipe, "is a named pipe; expected a regular file"),
        (make_folder, "is a folder; expected a regular file"),
        (make_socket, "is a socket; expected a regular file"),
        (make_device, "is a device; expected a regular file"),
        (make_loop, "is a symbolic link that leads back to itself"),
        (make_dangling_link, "does not exist"),
        (lambda path: None, "does not exist"),
    ],
)
def test_what_is_no_regular_file_is_refused_without_being_opened(
    tmp_path: Path,
    make: Callable[[Path], None],
    reason: str,
    read: Callable[[Path], object],
) -> None:
    path = tmp_path / "thing"
    make(path)
    with pytest.raises(DataError, match=f"^recipe .*thing {reason}"):
        read(path)


def test_a_path_that_becomes_a_pipe_after_the_check_does_not_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_pipe(tmp_path / "pipe")
    monkeypatch.setattr("lesiontk.files.regular_file.check_regular", lambda path, what: 0)
    with pytest.raises(DataError, match="is a named pipe"):
        open_regular(tmp_path / "pipe")


def test_a_path_that_leads_back_to_itself_has_no_full_path(tmp_path: Path) -> None:
    make_loop(tmp_path / "loop")
    for path in (tmp_path / "loop", tmp_path / "loop" / "below"):
        with pytest.raises(DataError, match=r"picture .* leads back to itself"):
            resolve_path(path, "picture")
    (tmp_path / "link").symlink_to("nothing")
    assert resolve_path(tmp_path / "link") == tmp_path.resolve() / "nothing"


def test_a_regular_file_is_read_through_links(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"\xef\xbb\xbfmole")
    (tmp_path / "link").symlink_to("file")
    assert check_regular(tmp_path / "link") == 7
    assert read_regular(tmp_path / "link", limit=7) == b"\xef\xbb\xbfmole"
    assert read_regular_text(tmp_path / "link", limit=7) == "mole"
    with open_regular(str(tmp_path / "link"), limit=7) as stream:
        assert stream.read(3) == b"\xef\xbb\xbf"


def test_a_file_above_the_limit_is_refused_with_both_numbers(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345678")
    for read in (read_regular, read_regular_text, open_regular):
        with pytest.raises(DataError, match="has 8 bytes; expected at most 7"):
            read(tmp_path / "file", limit=7)


def test_a_file_that_claims_to_be_empty_is_bounded_too() -> None:
    with pytest.raises(DataError, match="has more bytes; expected at most 3"):
        read_regular("/proc/self/stat", limit=3)


def test_bytes_that_are_no_text_are_told_with_their_place(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"ab\xff")
    with pytest.raises(DataError, match=r"is not valid UTF-8 \(byte 2\)"):
        read_regular_text(tmp_path / "file", limit=9)


@pytest.mark.parametrize("name", ["a\0b", "x" * 300, "\n"])
def test_a_name_that_no_file_has_is_one_line(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError) as caught:
        open_regular(tmp_path / name)
    assert len(str(caught.value)) < 400
    assert "\n" not in str(caught.value)
    assert "\0" not in str(caught.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch(mode=0)
    with pytest.raises(DataError, match="permission denied"):
        open_regular(tmp_path / "file")
