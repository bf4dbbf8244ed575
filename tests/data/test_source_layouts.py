"""Data sources: challenge data, folders and tables of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lesiontk.data.sources import SOURCES, detect_source
from lesiontk.data.sources.source import SourceTable
from lesiontk.errors import DataError
from lesiontk.records import ImageRecord
from tests.data.sample_files import write_images

ISIC_COLUMNS = "image,MEL,NV,BCC,AKIEC,BKL,DF,VASC"


def read(name: str, folder: Path) -> SourceTable:
    assert detect_source(folder) == name
    return SOURCES.get(name)().read(folder)


def write_isic(folder: Path, rows: list[str], columns: str = ISIC_COLUMNS) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "truth.csv").write_text("\n".join([columns, *rows]))
    write_images(folder / "Input", *(f"{row.split(',')[0]}.jpg" for row in rows))


def test_isic_2018_takes_lesions_from_the_groupings(tmp_path: Path) -> None:
    write_isic(tmp_path / "truth", ["ISIC_1,0,1,0,0,0,0,0", "ISIC_2,1.0,0.0,0,0,0,0,0"])
    (tmp_path / "ISIC2018_Task3_Training_LesionGroupings.csv").write_text(
        "image,lesion_id,diagnosis confirm type\nISIC_2,HAM_7,histopathology\nISIC_1,HAM_7,x\n"
    )
    table = read("isic", tmp_path)
    assert [(r.diagnosis, r.lesion_id) for r in table.records] == [
        ("nv", "HAM_7"),
        ("mel", "HAM_7"),
    ]
    assert table.lesion_ids_known


def test_isic_2019_has_nine_columns_and_metadata(tmp_path: Path) -> None:
    columns = "image,MEL,NV,BCC,AK,BKL,DF,VASC,SCC,UNK"
    rows = ["ISIC_1_downsampled,0,0,0,0,0,0,0,1,0", "ISIC_2,0,0,0,1,0,0,0,0,0"]
    write_isic(tmp_path, rows, columns)
    (tmp_path / "ISIC_2019_Training_Metadata.csv").write_text(
        "image,age_approx,anatom_site_general,lesion_id,sex\n"
        "ISIC_1_downsampled,55.0,anterior torso,BCN_1,female\nISIC_2,,,,\n"
    )
    table = read("isic", tmp_path)
    place = "Input/ISIC_1_downsampled.jpg"
    assert table.records[0] == ImageRecord(
        "ISIC_1_downsampled", "scc", place, "BCN_1", 55.0, "female", "anterior torso"
    )
    assert (table.records[1].diagnosis, table.records[1].lesion_id) == ("ak", None)
    assert not table.lesion_ids_known


@pytest.mark.parametrize(
    "marks", ["0,0,0,0,0,0,0", "1,1,0,0,0,0,0", "1,0.5,0,0,0,0,0", "x,1,0,0,0,0,0"]
)
def test_isic_rows_have_exactly_one_mark(tmp_path: Path, marks: str) -> None:
    write_isic(tmp_path, ["ISIC_1,1,0,0,0,0,0,0", f"ISIC_2,{marks}"])
    with pytest.raises(DataError, match=r"row 3: ISIC_2 has MEL=.*expected exactly one 1"):
        read("isic", tmp_path)


def test_isic_lesions_must_not_contradict_each_other(tmp_path: Path) -> None:
    write_isic(tmp_path, ["ISIC_1,1,0,0,0,0,0,0"])
    (tmp_path / "lesion_ids.csv").write_text("image,lesion_id\nISIC_1,A\nISIC_1,B\n")
    with pytest.raises(DataError, match=r"row 3: ISIC_1 is of lesion 'B', but of 'A'"):
        read("isic", tmp_path)


def test_isic_with_two_ground_truths_asks_for_one_folder(tmp_path: Path) -> None:
    write_isic(tmp_path / "train", ["ISIC_1,1,0,0,0,0,0,0"])
    write_isic(tmp_path / "test", ["ISIC_2,1,0,0,0,0,0,0"])
    with pytest.raises(DataError, match=r"contains test/truth.csv, train/truth.csv; expected"):
        read("isic", tmp_path)


def test_folders_name_the_classes(tmp_path: Path) -> None:
    write_images(tmp_path, "Melanoma/1.jpg", "Melanoma/x/2.png", "nv/3.jpg", "nv/1.jpg")
    (tmp_path / "lesions.csv").write_text("image_id,lesion_id\n2,A\nnv/1.jpg,B\n7,C\n")
    table = read("folder", tmp_path)
    assert {r.image_id: (r.diagnosis, r.lesion_id) for r in table.records} == {
        "Melanoma/1": ("melanoma", None),
        "2": ("melanoma", "A"),
        "3": ("nv", None),
        "nv/1": ("nv", "B"),
    }
    assert (table.missing, table.lesion_ids_known) == (("7",), False)


def test_folders_that_name_no_class_are_refused(tmp_path: Path) -> None:
    write_images(tmp_path, "train/1.jpg", "test/2.jpg")
    with pytest.raises(DataError, match="contains test, train, which is not a known data set"):
        detect_source(tmp_path)
    with pytest.raises(DataError, match=r"folder\(s\) test, train, which are not named after"):
        SOURCES.get("folder")().read(tmp_path)


def test_one_image_saved_twice_in_a_class_is_an_error(tmp_path: Path) -> None:
    write_images(tmp_path, "mel/1.jpg", "mel/1.png", "nv/2.jpg")
    with pytest.raises(DataError, match=r"mel/1.png: duplicate image 'mel/1', first in mel/1.jpg"):
        read("folder", tmp_path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("image,dx\nISIC_1,NV\n", ("ISIC_1", "nv", "a/ISIC_1.jpg", None)),
        ("path,diagnosis\na/ISIC_1.jpg,nv\n", ("ISIC_1", "nv", "a/ISIC_1.jpg", None)),
        ("path\tclass\na\\ISIC_1.jpg\tnv\n", ("ISIC_1", "nv", "a/ISIC_1.jpg", None)),
        (
            "file,target\nelsewhere/ISIC_1.jpg,nv\n",
            ("ISIC_1", "nv", "a/ISIC_1.jpg", None),
        ),
        ("image_id;file;label;lesion_id\nP7;ISIC_1.jpg;nv;L\n", ("P7", "nv", "a/ISIC_1.jpg", "L")),
        (
            "index,image_name,diagnosis,target\n0,ISIC_1,nv,0\n",
            ("ISIC_1", "nv", "a/ISIC_1.jpg", None),
        ),
    ],
)
def test_csv_columns_go_by_their_common_names(
    tmp_path: Path, text: str, expected: tuple[Any, ...]
) -> None:
    (tmp_path / "table.csv").write_text(text)
    write_images(tmp_path, "a/ISIC_1.jpg")
    record = read("csv", tmp_path).records[0]
    assert (record.image_id, record.diagnosis, record.location, record.lesion_id) == expected


def test_csv_paths_tell_images_of_one_name_apart(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text(
        "path,label,gender,site\na/1.jpg,nv,male,back\nb/1.jpg,mel,,\n"
    )
    write_images(tmp_path, "a/1.jpg", "b/1.jpg")
    table = read("csv", tmp_path)
    assert [(r.image_id, r.location) for r in table.records] == [
        ("a/1", "a/1.jpg"),
        ("b/1", "b/1.jpg"),
    ]
    assert (table.records[0].sex, table.records[0].site, table.records[1].sex) == (
        "male",
        "back",
        None,
    )


@pytest.mark.parametrize("name", ["../1.jpg", "/data/1.jpg", "..\\1.jpg"])
def test_csv_paths_stay_below_the_table(tmp_path: Path, name: str) -> None:
    (tmp_path / "table.csv").write_text(f"path,label\n{name},nv\n")
    write_images(tmp_path, "1.jpg")
    with pytest.raises(DataError, match=r"row 2: .* leaves the folder of the table"):
        read("csv", tmp_path)


def test_two_rows_for_one_file_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text("image_id,path,label\na,1.jpg,nv\nb,1.jpg,mel\n")
    write_images(tmp_path, "1.jpg")
    with pytest.raises(DataError, match=r"row 3: 1.jpg is also the file of table.csv, row 2"):
        read("csv", tmp_path)


def test_detection_does_not_choose_between_two(tmp_path: Path) -> None:
    table = tmp_path / "HAM10000_metadata.csv"
    table.write_text("lesion_id,image_id,dx,dx_type\nHAM_1,ISIC_1,nv,histo\n")
    write_isic(tmp_path, ["ISIC_1,1,0,0,0,0,0,0"])
    with pytest.raises(DataError, match=r"the layouts ham10000, isic; .* --source ham10000"):
        detect_source(tmp_path)
