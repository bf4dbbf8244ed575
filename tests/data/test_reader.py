"""Reading files: nothing outside the folder, nothing larger than said, nothing lost on the way."""

from __future__ import annotations

import io
import os
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lesiontk.data.decode import ImageError
from lesiontk.data.reader import ImageReader, decode_many
from lesiontk.errors import DataError
from lesiontk.records import ImageRecord
from tests.data.sample_files import encode_rgb, make_rgb

MEMBERS = {"inside/a.png": b"first", "b.png": b"second" * 1000}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    (folder / "part").mkdir(parents=True)
    (folder / "part" / "a.png").write_bytes(b"a file")
    (tmp_path / "secret.png").write_bytes(b"not yours")
    with zipfile.ZipFile(folder / "images.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in MEMBERS.items():
            archive.writestr(name, data)
    return folder


@pytest.fixture
def reader(root: Path) -> Iterator[ImageReader]:
    with ImageReader(root) as opened:
        yield opened


def read_reason(reader: ImageReader, location: str) -> str:
    with pytest.raises(ImageError) as caught:
        reader.read(location)
    assert caught.value.name == location
    return caught.value.reason


def test_files_and_members_are_read(reader: ImageReader) -> None:
    assert reader.read("part/a.png") == b"a file"
    for name, data in MEMBERS.items():
        assert reader.read(f"images.zip::{name}") == data


def test_a_closed_reader_lets_go_of_its_archives(root: Path) -> None:
    with ImageReader(root) as reader:
        reader.read("images.zip::b.png")
        archive = next(iter(reader._archives.values()))
    assert archive.fp is None
    assert reader._archives == {}


@pytest.mark.parametrize(
    "location",
    [
        "../secret.png",
        "part/../../secret.png",
        "part/../part/a.png",
        "..\\secret.png",
        "/etc/hostname",
        "C:\\secret.png",
        "\\\\server\\secret.png",
        "../secret.zip::a.png",
        "part/a\0.png",
        "",
    ],
)
def test_locations_that_leave_the_root_are_refused(reader: ImageReader, location: str) -> None:
    assert read_reason(reader, location) == "refused"


def test_a_link_out_of_the_root_is_refused_and_one_inside_is_not(
    root: Path, reader: ImageReader
) -> None:
    (root / "out.png").symlink_to(root.parent / "secret.png")
    (root / "up").symlink_to(root.parent)
    (root / "gone.png").symlink_to(root.parent / "nothing.png")
    (root / "in.png").symlink_to(root / "part" / "a.png")
    for location in ("out.png", "up/secret.png", "gone.png"):
        assert read_reason(reader, location) == "refused"
    assert reader.read("in.png") == b"a file"


def test_a_linked_root_is_a_root(root: Path) -> None:
    link = root.parent / "link"
    link.symlink_to(root)
    with ImageReader(link) as reader:
        assert reader.read("part/a.png") == b"a file"


@pytest.mark.parametrize(
    "location", ["nothing.png", "part/nothing.png", "images.zip::nothing", "no.zip::a.png"]
)
def test_what_is_not_there_is_missing(reader: ImageReader, location: str) -> None:
    assert read_reason(reader, location) == "missing"


def test_what_is_no_file_is_unreadable_and_does_not_block(root: Path, reader: ImageReader) -> None:
    os.mkfifo(root / "pipe.png")
    for location in ("pipe.png", "part", "part/a.png::b.png"):
        assert read_reason(reader, location) == "unreadable"


def test_a_damaged_member_is_unreadable(root: Path, reader: ImageReader) -> None:
    data = bytearray((root / "images.zip").read_bytes())
    data[data.index(b"inside/a.png") + 14] ^= 0xFF
    (root / "images.zip").write_bytes(data)
    assert read_reason(reader, "images.zip::inside/a.png") == "unreadable"
    assert reader.read("images.zip::b.png") == MEMBERS["b.png"]


def test_size_is_bounded_whatever_the_archive_states(root: Path) -> None:
    data = (root / "images.zip").read_bytes()
    size, lie = (6000).to_bytes(4, "little"), (5).to_bytes(4, "little")
    (root / "liar.zip").write_bytes(data.replace(size, lie))
    with ImageReader(root, max_bytes=5999) as reader:
        assert read_reason(reader, "images.zip::b.png") == "too_large"
        assert read_reason(reader, "liar.zip::b.png") in ("too_large", "unreadable")
        (root / "large.png").write_bytes(bytes(6000))
        assert read_reason(reader, "large.png") == "too_large"
        assert len(reader.read("images.zip::inside/a.png")) == 5
    with ImageReader(root, max_bytes=6000) as reader:
        assert len(reader.read("images.zip::b.png")) == 6000


def test_size_is_counted_where_none_is_stated(reader: ImageReader) -> None:
    reader.max_bytes = 100
    assert reader._read_bounded("a", io.BytesIO(bytes(100)), stated=0) == bytes(100)
    with pytest.raises(ImageError, match=r"received 101 bytes or more; expected at most 100"):
        reader._read_bounded("a", io.BytesIO(bytes(101)), stated=0)


def test_a_file_that_is_stated_too_large_is_not_read_at_all(reader: ImageReader) -> None:
    stream = io.BytesIO(b"short")
    with pytest.raises(ImageError, match="expected at most"):
        reader._read_bounded("a", stream, stated=reader.max_bytes + 1)
    assert stream.tell() == 0


def test_archives_are_read_by_one_thread_at_a_time(
    reader: ImageReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    locked: list[bool] = []
    read_bounded = reader._read_bounded

    def spy(*arguments: Any) -> bytes:
        locked.append(reader._lock.locked())
        return read_bounded(*arguments)

    monkeypatch.setattr(reader, "_read_bounded", spy)
    reader.read("images.zip::b.png")
    reader.read("part/a.png")
    assert locked == [True, False]


def test_a_reader_needs_a_folder(root: Path) -> None:
    for path in (root / "nothing", root / "images.zip"):
        with pytest.raises(DataError, match="expected the folder"):
            ImageReader(path)


def make_records(root: Path, count: int, broken: set[int]) -> list[ImageRecord]:
    """Images in one archive whose first pixel tells their number."""
    with zipfile.ZipFile(root / "many.zip", "w") as archive:
        for number in range(count):
            data = encode_rgb("PNG", pixels=make_rgb() + np.uint8(number))
            archive.writestr(f"{number}.png", data[:50] if number in broken else data)
    return [ImageRecord(str(i), "nv", f"many.zip::{i}.png") for i in range(count)]


@pytest.mark.parametrize("workers", [1, 4])
def test_many_are_decoded_in_order(root: Path, reader: ImageReader, workers: int) -> None:
    records = make_records(root, 60, broken={7, 30})
    steps: list[int] = []
    found = list(decode_many(reader, records, workers=workers, advance=steps.append))
    assert [index for index, _ in found] == list(range(60))
    assert steps == [1] * 60
    for index, result in found:
        if index in (7, 30):
            assert isinstance(result, ImageError)
            assert (result.name, result.reason) == (f"many.zip::{index}.png", "truncated")
        else:
            np.testing.assert_array_equal(result, make_rgb() + np.uint8(index))


def test_a_transform_runs_in_the_workers(root: Path, reader: ImageReader) -> None:
    names: set[str] = set()

    def crop(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        names.add(threading.current_thread().name)
        return pixels[:8, :8]

    records = make_records(root, 6, broken=set())
    shapes = [
        result.shape
        for _, result in decode_many(reader, records, workers=2, transform=crop)
        if not isinstance(result, ImageError)
    ]
    assert shapes == [(8, 8, 3)] * 6
    assert threading.current_thread().name not in names


def test_a_broken_transform_is_no_broken_image(root: Path, reader: ImageReader) -> None:
    def fail(pixels: NDArray[np.uint8]) -> Any:
        raise ZeroDivisionError

    records = make_records(root, 6, broken=set())
    with pytest.raises(ZeroDivisionError):
        list(decode_many(reader, records, workers=2, transform=fail))


@pytest.mark.parametrize(
    ("count", "broken", "fraction", "stops"),
    [
        (40, 3, 0.01, False),
        (40, 4, 0.01, True),
        (40, 8, 0.2, False),
        (40, 9, 0.2, True),
        (40, 1, 0.0, True),
        (2, 2, 0.01, True),
        (2, 1, 0.01, False),
    ],
)
def test_too_many_failures_stop_the_run(
    root: Path, reader: ImageReader, count: int, broken: int, fraction: float, stops: bool
) -> None:
    records = make_records(root, count, broken=set(range(broken)))
    run = decode_many(reader, records, workers=2, max_failures=fraction)
    if not stops:
        assert sum(isinstance(result, ImageError) for _, result in run) == broken
        return
    with pytest.raises(DataError, match=rf"{broken} of the first {broken} images \(of {count}\)"):
        list(run)


def test_the_first_five_failures_are_named(root: Path, reader: ImageReader) -> None:
    records = make_records(root, 40, broken=set(range(0, 20, 2)))
    with pytest.raises(DataError) as caught:
        list(decode_many(reader, records, workers=2, max_failures=0.2))
    listed = [line for line in str(caught.value).splitlines() if "truncated" in line]
    assert [line.split("::")[1].split(".")[0] for line in listed] == ["0", "2", "4", "6", "8"]
    assert str(caught.value).startswith("9 of the first 17 images (of 40)")


class CountedRecords(list[ImageRecord]):
    """Counts how many records were asked for."""

    asked = 0

    def __getitem__(self, index: Any) -> Any:
        self.asked += 1
        return super().__getitem__(index)


def test_look_ahead_is_bounded_and_ends_with_the_generator(root: Path, reader: ImageReader) -> None:
    records = CountedRecords(make_records(root, 50, broken=set()))
    run = decode_many(reader, records, workers=2)
    for _ in range(3):
        next(run)
    assert 3 <= records.asked <= 3 + 2 * 2
    run.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("decode")]


def test_wrong_arguments_are_bugs(reader: ImageReader) -> None:
    with pytest.raises(ValueError, match="workers"):
        next(decode_many(reader, [], workers=0))
    with pytest.raises(ValueError, match="max_failures"):
        next(decode_many(reader, [], workers=1, max_failures=5))
    assert list(decode_many(reader, [], workers=1)) == []
