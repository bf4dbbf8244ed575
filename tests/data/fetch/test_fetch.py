"""Whole sources: checksums, pins, and the layout that results."""

from __future__ import annotations

import json
import logging
import os
import shutil
import threading
from pathlib import Path
from typing import Any

import pooch
import pytest

from lesiontk.data.fetch.download import DownloadPolicy
from lesiontk.data.fetch.fetch import FetchResult, fetch_source
from lesiontk.data.fetch.sources import OfficialSource, Placement, RemoteFile
from lesiontk.errors import DataError, MissingRequirementError
from lesiontk.files.folder_lock import hold_folder
from tests.data.local_server import BODY, OTHER, Page, Server, md5, names, sha256, source_of, zip_of


def test_a_first_download_is_pinned_and_held_to_from_then_on(
    server: Server, unpublished: OfficialSource, tmp_path: Path, policy: DownloadPolicy
) -> None:
    (file,) = fetch_source(unpublished, tmp_path, policy=policy).files
    assert file.verified_by == ("pinned now in checksums.json",)
    pins = json.loads((tmp_path / "checksums.json").read_text(encoding="utf-8"))
    assert pins["files"]["a.bin"]["sha256"] == sha256(BODY)
    (file,) = fetch_source(unpublished, tmp_path, policy=policy).files
    assert file.verified_by == ("sha256 from checksums.json",)
    (tmp_path / "a.bin").unlink()
    server.pages["/a.bin"].body = OTHER
    with pytest.raises(DataError, match=rf"expected {sha256(BODY)} \(checksums.json\)"):
        fetch_source(unpublished, tmp_path, policy=policy)
    assert (tmp_path / "a.bin.bad").read_bytes() == OTHER


def test_damage_on_disk_is_found_by_the_next_call(
    unpublished: OfficialSource, tmp_path: Path, policy: DownloadPolicy
) -> None:
    fetch_source(unpublished, tmp_path, policy=policy)
    (tmp_path / "a.bin").write_bytes(OTHER)
    with pytest.raises(DataError, match="Kept as"):
        fetch_source(unpublished, tmp_path, policy=policy)
    assert fetch_source(unpublished, tmp_path, policy=policy).files[0].path.read_bytes() == BODY


def test_a_login_page_in_place_of_an_archive_is_not_pinned(
    server: Server, tmp_path: Path, policy: DownloadPolicy
) -> None:
    server.pages["/a.zip"] = Page(b"<html>Please log in</html>")
    source = source_of(RemoteFile(name="a.zip", url=f"{server.url}/a.zip"))
    with pytest.raises(DataError, match="expected an intact zip archive"):
        fetch_source(source, tmp_path, policy=policy)
    assert names(tmp_path) == ["a.zip.bad"]


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"format": 2}',
        '{"format": 1}',
        '{"files": {}}',
        '{"format": 1, "files": {"a": 1}}',
    ],
)
def test_pins_that_cannot_be_read_are_not_ignored(
    unpublished: OfficialSource, tmp_path: Path, policy: DownloadPolicy, text: str
) -> None:
    (tmp_path / "checksums.json").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=r"checksums\.json cannot be read"):
        fetch_source(unpublished, tmp_path, policy=policy)


def test_a_folder_that_cannot_be_made_is_said(
    one: OfficialSource, tmp_path: Path, policy: DownloadPolicy
) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(MissingRequirementError, match="cannot write below"):
        fetch_source(one, tmp_path / "file", policy=policy)


TABLE = b"lesion_id,image_id,dx\nHAM_1,ISIC_1,nv\n"
PART = zip_of({"ISIC_1.jpg": b"first image", "ISIC_2.jpg": b"second"})


@pytest.fixture
def ham10000(server: Server) -> OfficialSource:
    """HAM10000 in small: a table and an archive, whose MD5 are known."""
    server.pages["/api/access/datafile/1"] = Page(TABLE)
    server.pages["/api/access/datafile/2"] = Page(PART)
    base = f"{server.url}/api/access/datafile"
    return source_of(
        RemoteFile(
            name="table.csv",
            url=f"{base}/1?format=original",
            bytes=len(TABLE),
            md5=md5(TABLE),
        ),
        RemoteFile(
            name="part.zip",
            url=f"{base}/2",
            bytes=len(PART),
            md5=md5(PART),
            unpack=Placement(members="ISIC_*.jpg", count=2, into="part"),
        ),
    )


def test_known_checksums_are_verified_and_the_usual_layout_results(
    server: Server, ham10000: OfficialSource, tmp_path: Path, policy: DownloadPolicy
) -> None:
    result = fetch_source(ham10000, tmp_path, policy=policy)
    assert [file.verified_by for file in result.files] == [("md5 from the list of sources",)] * 2
    assert (tmp_path / "table.csv").read_bytes() == TABLE
    assert names(tmp_path / "part") == ["ISIC_1.jpg", "ISIC_2.jpg"]
    assert result.files[1].path == tmp_path / "part"
    assert names(tmp_path) == ["checksums.json", "part", "part.zip", "table.csv"]
    assert server.paths() == ["/api/access/datafile/1?format=original", "/api/access/datafile/2"]
    again = fetch_source(ham10000, tmp_path, policy=policy)
    both = ("sha256 from checksums.json", "md5 from the list of sources")
    assert [file.verified_by for file in again.files] == [both] * 2
    assert len(server.requests) == 2


@pytest.mark.parametrize("wrong", [0, 1])
def test_content_of_another_checksum_is_refused(
    server: Server, ham10000: OfficialSource, tmp_path: Path, policy: DownloadPolicy, wrong: int
) -> None:
    page = server.pages[f"/api/access/datafile/{wrong + 1}"]
    page.body = bytes(len(page.body))
    with pytest.raises(DataError, match=r"md5 is .*, expected .* \(the list of sources\)"):
        fetch_source(ham10000, tmp_path, policy=policy)
    assert f"{ham10000.files[wrong].name}.bad" in names(tmp_path)


def test_a_file_put_there_by_hand_is_held_to_its_checksum(
    ham10000: OfficialSource, tmp_path: Path, policy: DownloadPolicy
) -> None:
    (tmp_path / "table.csv").write_bytes(TABLE.replace(b",", b"\t"))
    with pytest.raises(DataError, match=r"table\.csv does not match"):
        fetch_source(ham10000, tmp_path, policy=policy)
    assert names(tmp_path) == ["table.csv.bad"]


def test_a_run_killed_while_a_whole_file_is_verified_is_finished_without_a_request(
    server: Server,
    ham10000: OfficialSource,
    tmp_path: Path,
    policy: DownloadPolicy,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = pooch.core.hash_matches

    def killed(*args: Any, **options: Any) -> bool:
        shutil.copytree(tmp_path, left, copy_function=os.link)
        return bool(real(*args, **options))

    left = tmp_path.with_name("left")
    one = ham10000.model_copy(update={"files": ham10000.files[:1]})
    with monkeypatch.context() as patch:
        patch.setattr("pooch.core.hash_matches", killed)
        fetch_source(one, tmp_path, policy=policy)
    assert names(left) == [".pooch", "table.csv.part", "table.csv.part.json"]
    requests = len(server.requests)
    assert fetch_source(one, left, policy=policy).files[0].path.read_bytes() == TABLE
    assert len(server.requests) == requests
    assert names(left) == ["checksums.json", "table.csv"]


@pytest.fixture
def challenge(server: Server) -> OfficialSource:
    """ISIC 2018 in small: images and one-hot ground truth in archives without checksums."""
    server.pages["/truth.zip"] = Page(zip_of({"d/truth.csv": b"image,MEL\n", "d/LICENSE": b"free"}))
    server.pages["/input.zip"] = Page(zip_of({"d/ISIC_3.jpg": b"3", "d/ATTRIBUTION.txt": b"x"}))
    return source_of(
        RemoteFile(
            name="truth.zip",
            url=f"{server.url}/truth.zip",
            unpack=Placement(members="truth.csv", count=1, into="."),
        ),
        RemoteFile(
            name="input.zip",
            url=f"{server.url}/input.zip",
            unpack=Placement(members="ISIC_*.jpg", count=1, into="images"),
        ),
    )


def paths_of(result: FetchResult) -> list[str]:
    return [file.path.name for file in result.files]


def test_images_and_ground_truth_are_placed(
    challenge: OfficialSource, tmp_path: Path, policy: DownloadPolicy
) -> None:
    result = fetch_source(challenge, tmp_path, policy=policy)
    assert paths_of(result) == ["truth.csv", "images"]
    assert (tmp_path / "truth.csv").read_bytes() == b"image,MEL\n"
    assert names(tmp_path / "images") == ["ISIC_3.jpg"]


def test_unpacking_can_wait(
    server: Server, challenge: OfficialSource, tmp_path: Path, policy: DownloadPolicy
) -> None:
    result = fetch_source(challenge, tmp_path, policy=policy, unpack=False)
    assert paths_of(result) == ["truth.zip", "input.zip"]
    assert names(tmp_path) == ["checksums.json", "input.zip", "truth.zip"]
    assert paths_of(fetch_source(challenge, tmp_path, policy=policy)) == ["truth.csv", "images"]
    assert len(server.requests) == 2


def test_a_part_that_a_killed_run_left_of_a_placed_file_goes(
    one: OfficialSource, tmp_path: Path, policy: DownloadPolicy
) -> None:
    fetch_source(one, tmp_path, policy=policy)
    (tmp_path / "a.bin.part").hardlink_to(tmp_path / "a.bin")
    (tmp_path / "a.bin.part.json").write_text("{}")
    fetch_source(one, tmp_path, policy=policy)
    assert names(tmp_path) == ["a.bin", "checksums.json"]


def test_an_archive_deleted_after_unpacking_is_not_downloaded_again(
    server: Server, challenge: OfficialSource, tmp_path: Path, policy: DownloadPolicy
) -> None:
    fetch_source(challenge, tmp_path, policy=policy)
    fetch_source(challenge, tmp_path, policy=policy, unpack=False)
    for name in ("truth.zip", "input.zip"):
        (tmp_path / name).unlink()
    (tmp_path / "images" / ".DS_Store").write_bytes(b"left by a file manager")
    result = fetch_source(challenge, tmp_path, policy=policy)
    assert [file.origin for file in result.files] == ["unpacked"] * 2
    assert len(server.requests) == 2
    (tmp_path / "images" / "ISIC_3.jpg").unlink()
    with pytest.raises(DataError, match="images has 0 files of 0 bytes; expected 1 of 1"):
        fetch_source(challenge, tmp_path, policy=policy)
    (tmp_path / "images" / ".DS_Store").unlink()
    (tmp_path / "images").rmdir()
    assert paths_of(fetch_source(challenge, tmp_path, policy=policy)) == ["truth.csv", "images"]
    assert server.paths() == ["/truth.zip", "/input.zip", "/input.zip"]


def test_an_unpacking_that_was_not_noted_down_is_recognized(
    challenge: OfficialSource, tmp_path: Path, policy: DownloadPolicy
) -> None:
    fetch_source(challenge, tmp_path, policy=policy)
    (tmp_path / "checksums.json").unlink()
    assert paths_of(fetch_source(challenge, tmp_path, policy=policy)) == ["truth.csv", "images"]


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        ({"../ISIC_3.jpg": b"3"}, "leaves the target folder"),
        ({"ISIC_3.jpg": bytes(3 << 20)}, "bomb"),
        ({"ISIC_3.png": b"3"}, "not the published archive"),
    ],
)
def test_a_wrong_archive_is_neither_unpacked_nor_pinned(
    server: Server,
    challenge: OfficialSource,
    tmp_path: Path,
    policy: DownloadPolicy,
    contents: dict[str, bytes],
    message: str,
) -> None:
    server.pages["/input.zip"].body = zip_of(contents)
    with pytest.raises(DataError, match=message):
        fetch_source(challenge, tmp_path, policy=policy)
    assert names(tmp_path) == ["checksums.json", "input.zip", "truth.csv", "truth.zip"]
    assert "input.zip" not in (tmp_path / "checksums.json").read_text(encoding="utf-8")


def test_a_second_process_waits_for_the_first(
    server: Server,
    unpublished: OfficialSource,
    tmp_path: Path,
    policy: DownloadPolicy,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Two that wrote one file at once mixed their bytes, and without a checksum none saw it."""
    waits, fetched = threading.Event(), []
    logging.getLogger("lesiontk.data.fetch.fetch").addFilter(
        notice := lambda record: waits.set() or True  # type: ignore[func-returns-value]
    )
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    second = threading.Thread(
        target=lambda: fetched.append(fetch_source(unpublished, tmp_path / "link", policy=policy))
    )
    try:
        with hold_folder(tmp_path / "real", lambda: pytest.fail("nobody else has it")):
            second.start()
            assert waits.wait(10)
            assert server.requests == []
        second.join(10)
    finally:
        logging.getLogger("lesiontk.data.fetch.fetch").removeFilter(notice)
    assert "link: waiting for another fetch" in caplog.text
    assert fetched[0].files[0].path.read_bytes() == BODY
