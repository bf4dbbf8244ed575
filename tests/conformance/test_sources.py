"""What every registered data source must do, each on a tiny data set in its own layout."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lesiontk.data.decode import decode_image
from lesiontk.data.reader import ImageReader
from lesiontk.data.sources import SOURCES, detect_source
from lesiontk.data.sources.source import Source, SourceTable
from lesiontk.data.tasks import load_task
from lesiontk.errors import DataError
from tests.conformance.subjects import WRITERS, write_image

IMAGES = {"ISIC_0000001": "nv", "ISIC_0000002": "nv", "ISIC_0000003": "mel", "ISIC_0000004": "bkl"}


each_source = pytest.mark.parametrize("name", list(SOURCES))


@pytest.fixture
def folder(name: str, tmp_path: Path) -> Path:
    WRITERS[name](tmp_path / "data", IMAGES)
    return tmp_path / "data"


@pytest.fixture
def table(name: str, folder: Path) -> SourceTable:
    return SOURCES.get(name)().read(folder)


def test_listing_the_sources_imports_no_library() -> None:
    heavy = {"numpy", "pandas", "PIL", "tensorflow"}
    code = "import sys, lesiontk.data.sources as s; list(s.SOURCES); print(*sys.modules)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert "lesiontk.data.sources" in result.stdout.split()
    assert not heavy & set(result.stdout.split())


@each_source
def test_it_says_what_it_is(name: str) -> None:
    source = SOURCES.get(name)
    assert issubclass(source, Source)
    assert source.info.name == name
    assert source.info.description
    assert len(source.info.layout) > 20


@each_source
def test_it_alone_recognizes_its_layout(name: str, folder: Path) -> None:
    found = [other for other, source in SOURCES.items() if source().detect(folder)]
    assert found == [name]
    assert detect_source(folder) == name


@each_source
def test_it_lists_every_image_with_its_diagnosis(name: str, table: SourceTable) -> None:
    assert {record.image_id: record.diagnosis for record in table.records} == IMAGES
    assert (table.missing, table.unlisted) == ((), 0)
    assert table.lesion_ids_known == all(record.lesion_id for record in table.records)
    assert table.licence
    assert table.citation
    task = load_task("seven_class")
    assert all(task.label_index(record.diagnosis) >= 0 for record in table.records)


@each_source
def test_its_locations_can_be_read(name: str, folder: Path, table: SourceTable) -> None:
    assert len({record.location for record in table.records}) == len(IMAGES)
    with ImageReader(folder) as reader:
        for record in table.records:
            pixels = decode_image(reader.read(record.location), name=record.location)
            assert pixels.shape == (16, 24, 3)


@each_source
def test_reading_again_gives_the_same_table(name: str, folder: Path, table: SourceTable) -> None:
    assert SOURCES.get(name)().read(folder) == table


@each_source
def test_its_hash_follows_its_labels(name: str, folder: Path, table: SourceTable) -> None:
    WRITERS[name](folder.parent / "same", IMAGES)
    assert SOURCES.get(name)().read(folder.parent / "same").metadata_sha256 == table.metadata_sha256
    relabeled = {image: "df" if label == "bkl" else label for image, label in IMAGES.items()}
    WRITERS[name](folder.parent / "relabeled", relabeled)
    again = SOURCES.get(name)().read(folder.parent / "relabeled")
    assert len(again.metadata_sha256) == 64
    assert again.metadata_sha256 != table.metadata_sha256


@each_source
def test_extra_images_are_counted_and_none_left_is_an_error(name: str, folder: Path) -> None:
    write_image(folder / "leftover.png", 9)
    assert SOURCES.get(name)().read(folder).unlisted == 1
    for path in [*folder.rglob("*.jpg"), *folder.rglob("*.png")]:
        path.unlink()
    with pytest.raises(DataError, match="expected"):
        SOURCES.get(name)().read(folder)


@each_source
def test_a_missing_path_is_a_clear_error(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    source = SOURCES.get(name)()
    for path, what in ((tmp_path / "nothing", "does not exist"), (tmp_path / "file", "is a file")):
        assert not source.detect(path)
        with pytest.raises(DataError, match=f"{path.name} {what}; expected the folder") as caught:
            source.read(path)
        assert source.info.layout in str(caught.value)


@each_source
def test_another_layout_is_a_clear_error(name: str, tmp_path: Path) -> None:
    (tmp_path / "notes.csv").write_text("a,b\n1,2\n")
    source = SOURCES.get(name)()
    assert not source.detect(tmp_path)
    with pytest.raises(DataError, match="expected") as caught:
        source.read(tmp_path)
    assert source.info.layout in str(caught.value)
