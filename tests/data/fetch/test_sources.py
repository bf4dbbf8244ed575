"""The list of official sources: what it says, and what is refused in one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from lesiontk.data.fetch.download import DownloadPolicy
from lesiontk.data.fetch.fetch import fetch_source
from lesiontk.data.fetch.sources import (
    find_official_source,
    list_official_sources,
    read_official_sources,
)
from lesiontk.errors import DataError, UsageError
from tests.data.local_server import Page, Server, names, zip_of


def test_the_official_sources_state_whose_they_are_and_use_https() -> None:
    sources = {source.name: source for source in list_official_sources()}
    assert list(sources) == ["ham10000", "isic2018-test", "isic2018-validation"]
    for source in sources.values():
        assert "CC BY-NC" in source.notice
        assert "Tschandl" in source.notice
        assert all(file.url.startswith("https://") for file in source.files)


def test_ham10000_is_laid_out_as_usual_and_fully_pinned() -> None:
    source = find_official_source("ham10000")
    placed = {file.name: file.unpack and file.unpack.into for file in source.files}
    assert placed == {
        "HAM10000_metadata.csv": None,
        "HAM10000_images_part_1.zip": "HAM10000_images_part_1",
        "HAM10000_images_part_2.zip": "HAM10000_images_part_2",
    }
    assert sum(file.unpack.count for file in source.files if file.unpack) == 10_015
    assert all(file.md5 and file.bytes for file in source.files)
    assert source.files[0].url.endswith("?format=original")


def test_an_unknown_source_is_answered_with_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"unknown data source 'ham1000'.*Did you mean 'ham10000'"):
        find_official_source("ham1000")


SERVED = zip_of({"ISIC_1.jpg": b"first image", "ISIC_2.jpg": b"second"})
GOOD: dict[str, Any] = {
    "name": "s",
    "title": "t",
    "licence": "l",
    "citation": "c",
    "homepage": "h",
    "files": [{"name": "a.zip", "url": "https://x.example/a"}],
}


def with_file(**changes: Any) -> dict[str, Any]:
    return {**GOOD, "files": [{**GOOD["files"][0], **changes}]}


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (
            {"sources": [{**GOOD, "license": "MIT"}]},
            "unknown key 'sources.0.license'. Did you mean 'licence'",
        ),
        ({"sources": [{**GOOD, "title": 3}]}, "title: Input should be a valid string .received 3"),
        (
            {"sources": [{k: v for k, v in GOOD.items() if k != "licence"}]},
            "sources.0.licence: Field required",
        ),
        ({"sources": [GOOD, GOOD]}, "expected one or more of different names"),
        ({"sources": ["ham10000"]}, "sources.0: Input should be a valid dictionary"),
        ({"source": []}, "unknown key 'source'. Did you mean 'sources'"),
        ({"sources": [{**GOOD, "files": []}]}, "expected one or more"),
        ({"sources": [with_file(url="http://x.example/a")]}, "expected https"),
        ({"sources": [with_file(url="file:///etc/passwd")]}, "expected https"),
        ({"sources": [with_file(url="https://[")]}, "expected https"),
        ({"sources": [with_file(md5="abc")]}, "expected 32 lower-case"),
        ({"sources": [with_file(md5=12)]}, "md5: Input should be a valid string .received 12"),
        ({"sources": [with_file(sha256="A" * 64)]}, "expected 64 lower-case"),
        ({"sources": [with_file(name="../a.zip")]}, "file name is '../a.zip'"),
        ({"sources": [with_file(name="checksums.json")]}, "file name is 'checksums.json'"),
        ({"sources": [with_file(unpack={"members": "*", "count": 1, "into": ".."})]}, "one folder"),
        ({"sources": [with_file(unpack={"members": "*", "count": 2, "into": "."})]}, "one file"),
        (
            {"sources": [with_file(unpack={"members": "*", "count": 0, "into": "i"})]},
            "count: Input should be greater than or equal to 1",
        ),
        ({"sources": [with_file(unpack={"members": "*", "count": 1})]}, "into: Field required"),
    ],
)
def test_a_wrong_list_of_sources_is_refused(
    tmp_path: Path, document: dict[str, Any], message: str
) -> None:
    path = tmp_path / "sources.yaml"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    with pytest.raises(DataError, match=message):
        read_official_sources(path)


def test_a_list_of_sources_that_is_no_yaml_is_refused(tmp_path: Path) -> None:
    (tmp_path / "sources.yaml").write_text("a: [", encoding="utf-8")
    for name in ("sources.yaml", "missing.yaml"):
        with pytest.raises(DataError, match="expected a YAML file"):
            read_official_sources(tmp_path / name)


def test_sources_can_be_read_from_another_file(
    server: Server, tmp_path: Path, policy: DownloadPolicy
) -> None:
    server.pages["/a.zip"] = Page(SERVED)
    unpack = {"members": "ISIC_*.jpg", "count": 2, "into": "images"}
    document = {"sources": [with_file(url=f"{server.url}/a.zip", unpack=unpack)]}
    (tmp_path / "sources.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")
    (source,) = read_official_sources(tmp_path / "sources.yaml")
    fetch_source(source, tmp_path / "d", policy=policy)
    assert names(tmp_path / "d" / "images") == ["ISIC_1.jpg", "ISIC_2.jpg"]
