"""Unpacking: what is placed, and everything that is refused before it can do harm."""

from __future__ import annotations

import stat
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lesiontk.data.fetch.archives import (
    UnpackLimits,
    check_zip,
    unpack_file,
    unpack_folder,
)
from lesiontk.errors import DataError, MissingRequirementError

Member = tuple[str | zipfile.ZipInfo, bytes]
IMAGES = [("top/ISIC_1.jpg", b"one"), ("top/ISIC_2.jpg", b"second")]


def write_zip(path: Path, members: Sequence[Member], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as out:
        for info, content in members:
            out.writestr(info, content)
    return path


def member_of_kind(name: str, kind: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.create_system = 3
    info.external_attr = (kind | 0o644) << 16
    return info


def patch(archive: Path, old: bytes, new: bytes, count: int = -1) -> Path:
    content = archive.read_bytes()
    assert old in content
    archive.write_bytes(content.replace(old, new, count))
    return archive


def assert_nothing_left(folder: Path, *, but: Sequence[str] = ("a.zip",)) -> None:
    assert sorted(path.name for path in folder.iterdir()) == sorted(but)


def test_members_are_placed_by_base_name_and_the_others_are_reported(tmp_path: Path) -> None:
    archive = write_zip(
        tmp_path / "a.zip",
        [*IMAGES, ("top/", b""), ("top/LICENSE.txt", b"free"), ("__MACOSX/._ISIC_1.jpg", b"x")],
    )
    unpacked = unpack_folder(archive, tmp_path / "images", members="ISIC_*.jpg", count=2)
    assert (tmp_path / "images" / "ISIC_1.jpg").read_bytes() == b"one"
    assert (tmp_path / "images" / "ISIC_2.jpg").read_bytes() == b"second"
    assert (unpacked.files, unpacked.bytes) == (2, 9)
    assert unpacked.left_out == ("top/LICENSE.txt", "__MACOSX/._ISIC_1.jpg")
    assert_nothing_left(tmp_path, but=("a.zip", "images"))


def test_progress_ends_at_the_total(tmp_path: Path) -> None:
    seen: list[tuple[str, int, int | None]] = []
    archive = write_zip(tmp_path / "a.zip", IMAGES)
    unpack_folder(archive, tmp_path / "i", progress=lambda *report: seen.append(report))
    assert seen == [("unpack a.zip", 3, 9), ("unpack a.zip", 9, 9)]


def test_one_file_is_placed_beside_others(tmp_path: Path) -> None:
    archive = write_zip(tmp_path / "a.zip", [("d/truth.csv", b"a,b\n"), ("d/README", b"hello")])
    unpacked = unpack_file(archive, tmp_path / "truth.csv")
    assert unpacked.path.read_bytes() == b"a,b\n"
    assert unpacked.left_out == ("d/README",)
    assert unpack_file(archive, tmp_path / "truth.csv") == unpacked
    assert_nothing_left(tmp_path, but=("a.zip", "truth.csv"))


def test_a_file_in_the_way_is_not_overwritten(tmp_path: Path) -> None:
    archive = write_zip(tmp_path / "a.zip", [("truth.csv", b"a,b\n")])
    (tmp_path / "truth.csv").write_bytes(b"mine")
    with pytest.raises(DataError, match=r"truth.csv exists and differs"):
        unpack_file(archive, tmp_path / "truth.csv")
    (tmp_path / "images").write_bytes(b"mine")
    with pytest.raises(DataError, match="is a file"):
        unpack_folder(archive, tmp_path / "images")
    assert (tmp_path / "truth.csv").read_bytes() == b"mine"


def test_a_folder_with_the_same_files_is_left_alone(tmp_path: Path) -> None:
    archive = write_zip(tmp_path / "a.zip", IMAGES)
    first = unpack_folder(archive, tmp_path / "images")
    (tmp_path / "images" / ".DS_Store").write_bytes(b"left by a file manager")
    assert unpack_folder(archive, tmp_path / "images") == first


@pytest.mark.parametrize(
    ("name", "content"),
    [("ISIC_2.jpg", b"SECOND"), ("ISIC_2.jpg", b"longer!"), ("ISIC_3.jpg", b"extra")],
)
def test_a_folder_with_other_files_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    archive = write_zip(tmp_path / "a.zip", IMAGES)
    unpack_folder(archive, tmp_path / "images")
    (tmp_path / "images" / name).write_bytes(content)
    with pytest.raises(DataError, match=f"differs from a.zip, first in '{name}'"):
        unpack_folder(archive, tmp_path / "images")
    assert (tmp_path / "images" / name).read_bytes() == content


def test_a_missing_file_in_an_unpacked_folder_is_noticed(tmp_path: Path) -> None:
    archive = write_zip(tmp_path / "a.zip", IMAGES)
    unpack_folder(archive, tmp_path / "images")
    (tmp_path / "images" / "ISIC_1.jpg").unlink()
    with pytest.raises(DataError, match=r"first in 'ISIC_1\.jpg'"):
        unpack_folder(archive, tmp_path / "images")


def test_a_rerun_after_an_interruption_starts_clean(tmp_path: Path) -> None:
    archive = write_zip(tmp_path / "a.zip", IMAGES)

    def interrupt(description: str, done: int, total: int | None) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        unpack_folder(archive, tmp_path / "images", progress=interrupt)
    assert_nothing_left(tmp_path)
    killed = tmp_path / ".images.unpacking"
    killed.mkdir()
    (killed / "ISIC_1.jpg").write_bytes(b"half")
    (tmp_path / "images").mkdir()
    unpack_folder(archive, tmp_path / "images")
    assert (tmp_path / "images" / "ISIC_1.jpg").read_bytes() == b"one"
    assert_nothing_left(tmp_path, but=("a.zip", "images"))


@pytest.mark.parametrize(
    ("member", "message"),
    [
        ("../evil.jpg", "leaves the target folder"),
        ("images/../../evil.jpg", "leaves the target folder"),
        ("/etc/evil.jpg", "leaves the target folder"),
        ("..\\evil.jpg", "backslash"),
        ("C:/evil.jpg", "drive letter"),
        ("C:evil.jpg", "drive letter"),
        ("new\nline.jpg", "control character"),
        ("//", "empty name"),
        (member_of_kind("link.jpg", stat.S_IFLNK), "link or a device"),
        (member_of_kind("disk", stat.S_IFBLK), "link or a device"),
        (member_of_kind("tty", stat.S_IFCHR), "link or a device"),
        (member_of_kind("pipe", stat.S_IFIFO), "link or a device"),
    ],
)
def test_an_unsafe_member_is_refused_even_where_it_is_not_selected(
    tmp_path: Path, member: str | zipfile.ZipInfo, message: str
) -> None:
    archive = write_zip(tmp_path / "a.zip", [*IMAGES, (member, b"/etc/passwd")])
    with pytest.raises(DataError, match=message):
        unpack_folder(archive, tmp_path / "images", members="ISIC_*.jpg")
    assert_nothing_left(tmp_path)


def test_a_name_hidden_behind_a_nul_is_refused(tmp_path: Path) -> None:
    archive = write_zip(tmp_path / "a.zip", [("ISIC_1.jpgX.exe", b"content")])
    patch(archive, b"ISIC_1.jpgX.exe", b"ISIC_1.jpg\0.exe")
    with pytest.raises(DataError, match="control character"):
        unpack_folder(archive, tmp_path / "images")


@pytest.mark.parametrize("second", ["top/ISIC_1.jpg", "TOP/isic_1.JPG"])
def test_a_name_twice_is_refused(tmp_path: Path, second: str) -> None:
    archive = write_zip(tmp_path / "a.zip", [("top/ISIC_1.jpg", b"1"), ("z" * len(second), b"2")])
    patch(archive, b"z" * len(second), second.encode())
    with pytest.raises(DataError, match="twice"):
        unpack_folder(archive, tmp_path / "images")
    assert_nothing_left(tmp_path)


def test_one_base_name_in_two_folders_is_refused(tmp_path: Path) -> None:
    archive = write_zip(tmp_path / "a.zip", [("a/ISIC_1.jpg", b"1"), ("b/ISIC_1.JPG", b"2")])
    with pytest.raises(DataError, match="two members are called"):
        unpack_folder(archive, tmp_path / "images")


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (UnpackLimits(members=1), "has 2 members; expected at most 1"),
        (UnpackLimits(member_bytes=5), "has 6 bytes; expected at most 5"),
        (UnpackLimits(total_bytes=8), "states 9 bytes; expected at most 8"),
    ],
)
def test_limits_are_kept_to_the_byte(tmp_path: Path, limits: UnpackLimits, message: str) -> None:
    archive = write_zip(tmp_path / "a.zip", IMAGES)
    with pytest.raises(DataError, match=message):
        unpack_folder(archive, tmp_path / "images", limits)
    assert_nothing_left(tmp_path)
    exact = UnpackLimits(members=2, member_bytes=6, total_bytes=9)
    assert unpack_folder(archive, tmp_path / "images", exact).files == 2


def test_a_bomb_is_refused_and_a_short_table_of_zeros_is_not(tmp_path: Path) -> None:
    bomb = write_zip(tmp_path / "a.zip", [("ISIC_1.jpg", bytes(3 << 20))])
    with pytest.raises(DataError, match="100-fold, like a decompression bomb"):
        unpack_folder(bomb, tmp_path / "images")
    assert_nothing_left(tmp_path)
    table = write_zip(tmp_path / "a.zip", [("table.csv", b"0.0,1.0\n" * 10_000)])
    assert unpack_folder(table, tmp_path / "tables").bytes == 80_000


def test_the_bytes_that_come_out_are_counted_whatever_the_headers_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = write_zip(tmp_path / "a.zip", [("ISIC_1.jpg", b"12345"), ("ISIC_2.jpg", b"12345")])

    def read_more(opened: zipfile.ZipFile, info: zipfile.ZipInfo, archive: Path) -> list[bytes]:
        return [b"x" * 400] * 3

    monkeypatch.setattr("lesiontk.data.fetch.archives._read_member", read_more)
    for limits in (
        UnpackLimits(member_bytes=1000),
        UnpackLimits(total_bytes=1500),
        UnpackLimits(ratio=2, ratio_from_bytes=1000),
    ):
        with pytest.raises(DataError, match="exceeds the limits when unpacked"):
            unpack_folder(archive, tmp_path / "images", limits)
        assert_nothing_left(tmp_path)


def test_a_header_that_understates_the_size_is_caught(tmp_path: Path) -> None:
    archive = write_zip(tmp_path / "a.zip", [("ISIC_1.jpg", bytes(3 << 20))])
    patch(archive, (3 << 20).to_bytes(4, "little"), (10).to_bytes(4, "little"))
    with pytest.raises(DataError, match="cannot be read"):
        unpack_folder(archive, tmp_path / "images")
    assert_nothing_left(tmp_path)


def test_members_that_share_their_bytes_are_refused(tmp_path: Path) -> None:
    archive = write_zip(tmp_path / "a.zip", [("ISIC_1.jpg", b"abc" * 50)], zipfile.ZIP_STORED)
    patch(archive, (150).to_bytes(4, "little"), (900).to_bytes(4, "little"))
    with pytest.raises(DataError, match="overlap"):
        unpack_folder(archive, tmp_path / "images")


def test_an_encrypted_member_is_refused_by_name(tmp_path: Path) -> None:
    archive = write_zip(tmp_path / "a.zip", IMAGES)
    content = bytearray(archive.read_bytes())
    for header, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(header) + flags] |= 1
    archive.write_bytes(content)
    with pytest.raises(DataError, match=r"top/ISIC_1.jpg' is encrypted; .* without a password"):
        unpack_folder(archive, tmp_path / "images")


def test_an_unusual_compression_is_refused(tmp_path: Path) -> None:
    archive = write_zip(tmp_path / "a.zip", IMAGES, zipfile.ZIP_LZMA)
    with pytest.raises(DataError, match="method 14; expected stored or deflated"):
        unpack_folder(archive, tmp_path / "images")


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"<html>Please log in</html>",
        lambda content: b"",
        lambda content: content[: len(content) // 2],
        lambda content: content.replace(b"second", b"sEcond"),
    ],
)
def test_a_corrupt_archive_is_a_data_error(
    tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    archive = write_zip(tmp_path / "a.zip", IMAGES, zipfile.ZIP_STORED)
    archive.write_bytes(damage(archive.read_bytes()))
    with pytest.raises(DataError, match=r"a.zip cannot be read \(.*\); expected an intact zip"):
        unpack_folder(archive, tmp_path / "images")
    assert_nothing_left(tmp_path)


def test_a_member_lost_from_the_table_of_contents_is_noticed(tmp_path: Path) -> None:
    archive = write_zip(tmp_path / "a.zip", IMAGES)
    content = bytearray(archive.read_bytes())
    comment_length = content.index(b"PK\x01\x02") + 32
    content[comment_length] = 46 + len("top/ISIC_2.jpg")  # swallows the second entry
    archive.write_bytes(content)
    with pytest.raises(DataError, match="1 members listed, 2 stated"):
        unpack_folder(archive, tmp_path / "images")


def test_an_archive_with_a_comment_is_read(tmp_path: Path) -> None:
    archive = write_zip(tmp_path / "a.zip", IMAGES)
    with zipfile.ZipFile(archive, "a") as out:
        out.comment = b"made by hand"
    assert unpack_folder(archive, tmp_path / "images").files == 2


def test_check_zip_reads_the_table_of_contents(tmp_path: Path) -> None:
    check_zip(write_zip(tmp_path / "a.zip", IMAGES))
    (tmp_path / "b.zip").write_bytes(b"<html>")
    with pytest.raises(DataError, match="expected an intact zip"):
        check_zip(tmp_path / "b.zip")
    with pytest.raises(DataError, match="does not exist"):
        check_zip(tmp_path / "c.zip")


@pytest.mark.parametrize(("pattern", "count"), [("*.png", None), ("*.jpg", 3), ("*.jpg", 1)])
def test_another_archive_than_expected_is_refused(
    tmp_path: Path, pattern: str, count: int | None
) -> None:
    archive = write_zip(tmp_path / "a.zip", IMAGES)
    with pytest.raises(DataError, match="not the published archive"):
        unpack_folder(archive, tmp_path / "images", members=pattern, count=count)


def test_a_full_disk_is_noticed_before_writing(tmp_path: Path) -> None:
    archive = write_zip(tmp_path / "a.zip", IMAGES)
    with pytest.raises(MissingRequirementError, match=r"needs 9 bytes and .* has 8 free"):
        unpack_folder(archive, tmp_path / "images", free_bytes=lambda folder: 8)
    assert_nothing_left(tmp_path)
    assert unpack_folder(archive, tmp_path / "images", free_bytes=lambda folder: 9).files == 2


@settings(max_examples=30)
@given(st.dictionaries(st.from_regex(r"[a-z0-9]{1,8}", fullmatch=True), st.binary(), min_size=1))
def test_what_was_packed_comes_out(contents: dict[str, bytes]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        archive = write_zip(Path(folder) / "a.zip", list(contents.items()))
        unpack_folder(archive, Path(folder) / "out")
        found = {path.name: path.read_bytes() for path in (Path(folder) / "out").iterdir()}
    assert found == contents


@settings(max_examples=150)
@given(st.data())
def test_one_wrong_byte_is_refused_or_changes_no_content(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        archive = write_zip(Path(folder) / "a.zip", IMAGES)
        content = bytearray(archive.read_bytes())
        place = data.draw(st.integers(0, len(content) - 1))
        content[place] = data.draw(st.integers(0, 255))
        archive.write_bytes(content)
        try:
            unpack_folder(archive, Path(folder) / "out")
        except DataError:
            assert not (Path(folder) / "out").exists()
        else:
            found = sorted(path.read_bytes() for path in (Path(folder) / "out").iterdir())
            assert found == [b"one", b"second"]
