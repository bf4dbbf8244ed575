"""Data sources: HAM10000 and tables in the forms in which they really come."""

from __future__ import annotations

from pathlib import Path

import pytest

from lesiontk.data.decode import decode_image
from lesiontk.data.reader import ImageReader
from lesiontk.data.sources import SOURCES, detect_source
from lesiontk.data.sources.source import SourceTable
from lesiontk.data.synthetic.dataset import write_synthetic_dataset
from lesiontk.errors import DataError
from lesiontk.records import ImageRecord
from tests.data.sample_files import encode_rgb, write_images, write_zip

HAM_COLUMNS = "lesion_id,image_id,dx,dx_type,age,sex,localization"
HAM_ROWS = [
    "HAM_1,ISIC_1,nv,histo,45.0,male,back",
    "HAM_1,ISIC_2,nv,follow_up,,unknown,unknown",
    "HAM_2,ISIC_3,mel,histo,nan,female,face",
]
SHARED = Path(__file__).parents[2].parent / "shared" / "data"


def write_ham(
    folder: Path, rows: list[str] = HAM_ROWS, name: str = "HAM10000_metadata.csv"
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("\n".join([HAM_COLUMNS, *rows]))


def read(name: str, folder: Path) -> SourceTable:
    assert detect_source(folder) == name
    return SOURCES.get(name)().read(folder)


def by_id(table: SourceTable) -> dict[str, ImageRecord]:
    return {record.image_id: record for record in table.records}


def test_ham10000_rows_become_records(tmp_path: Path) -> None:
    write_ham(tmp_path)
    write_images(tmp_path / "HAM10000_images_part_1", "ISIC_3.jpg", "ISIC_1.jpg")
    write_images(tmp_path / "HAM10000_images_part_2", "ISIC_2.jpg")
    table = read("ham10000", tmp_path)
    place = "HAM10000_images_part_1/ISIC_1.jpg"
    records = by_id(table)
    assert records["ISIC_1"] == ImageRecord("ISIC_1", "nv", place, "HAM_1", 45.0, "male", "back")
    assert (records["ISIC_2"].age, records["ISIC_2"].sex, records["ISIC_2"].site) == (None,) * 3
    assert (records["ISIC_3"].age, records["ISIC_3"].sex) == (None, "female")
    assert table.lesion_ids_known
    assert "BY-NC" in table.licence


@pytest.mark.parametrize(
    "folders",
    [
        ["HAM10000_images_part_1", "HAM10000_images_part_2", "HAM10000_images_part_2"],
        ["ham10000_images_part_1", "ham10000_images_part_2", "ham10000_images_part_1"],
        ["images"] * 3,
        ["."] * 3,
        ["deep/down/here"] * 3,
    ],
)
def test_ham10000_images_are_found_where_people_put_them(
    tmp_path: Path, folders: list[str]
) -> None:
    write_ham(tmp_path)
    for number, folder in enumerate(folders, 1):
        write_images(tmp_path / folder, f"ISIC_{number}.jpg")
    assert len(read("ham10000", tmp_path).records) == 3


@pytest.mark.parametrize("inside", ["", "HAM10000_images_part_1/"])
def test_ham10000_archives_are_read_in_place(tmp_path: Path, inside: str) -> None:
    write_ham(tmp_path)
    first, second = (tmp_path / f"HAM10000_images_part_{part}.zip" for part in (1, 2))
    write_zip(first, f"{inside}ISIC_1.jpg", f"{inside}ISIC_2.jpg", "__MACOSX/._ISIC_1.jpg")
    write_zip(second, f"{inside}ISIC_3.jpg")
    table = read("ham10000", tmp_path)
    place = f"HAM10000_images_part_1.zip::{inside}ISIC_1.jpg"
    assert by_id(table)["ISIC_1"].location == place
    assert table.unlisted == 0
    with ImageReader(tmp_path) as reader:
        assert decode_image(reader.read(place), name=place).size
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "HAM10000_images_part_1.zip",
        "HAM10000_images_part_2.zip",
        "HAM10000_metadata.csv",
    ]


def test_ham10000_prefers_unpacked_files_and_the_publishers_folders(tmp_path: Path) -> None:
    write_ham(tmp_path)
    images = ["ISIC_1.jpg", "ISIC_2.jpg", "ISIC_3.jpg"]
    write_images(tmp_path / "HAM10000_images_part_1", *images)
    for folder in ("A_copy", "ham10000_images_part_1"):
        write_images(tmp_path / folder, *images)
        (tmp_path / folder / "ISIC_1.jpg").write_bytes(encode_rgb("JPEG", quality=5))
    write_zip(tmp_path / "HAM10000_images_part_1.zip", *images)
    table = read("ham10000", tmp_path)
    assert {r.location.split("/")[0] for r in table.records} == {"HAM10000_images_part_1"}
    assert table.unlisted == 0


@pytest.mark.parametrize(
    "name", ["HAM10000_metadata", "HAM10000_metadata.tab", "ham10000_metadata.CSV"]
)
def test_ham10000_metadata_may_be_the_tab_separated_original(tmp_path: Path, name: str) -> None:
    lines = [HAM_COLUMNS, *HAM_ROWS]
    text = "\r\n".join("\t".join(f'"{cell}"' for cell in line.split(",")) for line in lines)
    (tmp_path / name).write_bytes(text.encode())
    write_images(tmp_path, "ISIC_1.jpg", "ISIC_2.jpg", "ISIC_3.jpg")
    records = by_id(read("ham10000", tmp_path))
    assert (records["ISIC_1"].age, records["ISIC_3"].diagnosis) == (45.0, "mel")


def test_ham10000_counts_what_is_missing_and_what_is_too_much(tmp_path: Path) -> None:
    write_ham(tmp_path)
    write_images(tmp_path, "ISIC_1.jpg", "ISIC_8.jpg", "other/ISIC_9.jpg", ".hidden/ISIC_2.jpg")
    table = read("ham10000", tmp_path)
    assert (len(table.records), table.missing, table.unlisted) == (1, ("ISIC_2", "ISIC_3"), 2)


def test_two_different_files_of_one_name_are_an_error(tmp_path: Path) -> None:
    write_ham(tmp_path)
    write_images(tmp_path, "a/ISIC_1.jpg", "b/ISIC_1.jpg")
    assert by_id(read("ham10000", tmp_path))["ISIC_1"].location == "a/ISIC_1.jpg"
    (tmp_path / "b" / "ISIC_1.jpg").write_bytes(encode_rgb("JPEG", quality=5))
    with pytest.raises(DataError, match=r"2 different images .*: a/ISIC_1.jpg, b/ISIC_1.jpg;"):
        read("ham10000", tmp_path)


def test_a_table_as_people_save_it_is_read(tmp_path: Path) -> None:
    header = "\ufeff lesion_id , image_id,DX ,dx_type,age,sex"
    text = "\r\n".join([header, "", "HAM_1, ISIC_1 ,NV, histo,45 ,male,,", ",,,,,", ""])
    (tmp_path / "HAM10000_metadata.csv").write_bytes(text.encode())
    write_images(tmp_path, "ISIC_1.jpg")
    record = read("ham10000", tmp_path).records[0]
    assert (record.diagnosis, record.age, record.sex, record.site) == ("nv", 45.0, "male", None)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            "HAM_3,ISIC_1,nv,histo,45,male,back",
            r"row 5: duplicate image 'ISIC_1', first in .* row 2; "
            "expected",
        ),
        ("HAM_3,ISIC_4,,histo,45,male,back", r"row 5: dx is ''; expected a value"),
        ("HAM_3,,nv,histo,45,male,back", r"row 5: image_id is ''"),
        (",ISIC_4,nv,histo,45,male,back", r"row 5: lesion_id is ''"),
        ("HAM_3,ISIC_4,nv,histo,old,male,back", r"row 5: age is 'old'; expected years, 0 to 130"),
        ("HAM_3,ISIC_4,nv,histo,-5,male,back", r"row 5: age is '-5'"),
        ("HAM_3,ISIC_4,nv", r"row 5: received 3 cells; expected 7"),
        ("HAM_3,ISIC_4,nv,histo,45,male,back,x", r"row 5: received 8 cells; expected 7"),
        ('HAM_3,"ISIC_4,nv', r"row 5: .*expected a CSV table"),
        ("HAM_3,ISIC_4,nv,synthetic,45,male,back", r"row 5: dx_type is 'synthetic'; expected"),
    ],
)
def test_a_broken_row_is_named(tmp_path: Path, row: str, message: str) -> None:
    write_ham(tmp_path, [*HAM_ROWS, row])
    write_images(tmp_path, "ISIC_1.jpg", "ISIC_2.jpg", "ISIC_3.jpg", "ISIC_4.jpg")
    with pytest.raises(DataError, match=message):
        SOURCES.get("ham10000")().read(tmp_path)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (HAM_COLUMNS.encode(), "has no rows"),
        (f"{HAM_COLUMNS},dx\n1,2,3,4,5,6,7,8".encode(), "duplicate column dx"),
        (HAM_COLUMNS.encode() + b"\nHAM_1,\xff\xfe", "is not UTF-8 text"),
    ],
)
def test_a_broken_table_is_named(tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "HAM10000_metadata.csv").write_bytes(data)
    with pytest.raises(DataError, match=message):
        SOURCES.get("ham10000")().read(tmp_path)


def test_a_broken_archive_is_named(tmp_path: Path) -> None:
    write_ham(tmp_path)
    (tmp_path / "HAM10000_images_part_1.zip").write_bytes(b"half of a download")
    with pytest.raises(DataError, match=r"part_1.zip cannot be opened as a zip archive"):
        read("ham10000", tmp_path)


def test_detection_names_what_it_saw(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="contains nothing, which is not a known data set"):
        detect_source(tmp_path)
    for number in range(10):
        (tmp_path / f"note{number}.md").write_text("x")
    with pytest.raises(DataError, match=r"note0.md, .*note7.md and 2 more") as caught:
        detect_source(tmp_path)
    for name, source in SOURCES.items():
        assert f"{name}: {source.info.layout}" in str(caught.value)
    with pytest.raises(DataError, match="nothing does not exist"):
        detect_source(tmp_path / "nothing")


@pytest.mark.shared
def test_the_real_ham10000_is_read_whole() -> None:
    if not (SHARED / "ham10000").is_dir():
        pytest.skip("the real HAM10000 is not beside this checkout")
    table = read("ham10000", SHARED / "ham10000")
    counts = dict.fromkeys(("nv", "mel", "bkl", "bcc", "akiec", "vasc", "df"), 0)
    for record in table.records:
        counts[record.diagnosis] += 1
    assert list(counts.values()) == [6705, 1113, 1099, 514, 327, 142, 115]
    assert len({record.lesion_id for record in table.records}) == 7470
    assert sum(record.age is None for record in table.records) == 57
    assert (table.missing, table.unlisted) == ((), 0)


def test_what_the_generator_writes_is_a_synthetic_source(tmp_path: Path) -> None:
    count = write_synthetic_dataset(tmp_path, lesions=7, image_size=16, seed=1)
    table = read("synthetic", tmp_path)
    assert (len(table.records), table.missing, table.unlisted) == (count, (), 0)
    assert table.licence == "synthetic, CC0"
    with pytest.raises(DataError, match="expected only photographs"):
        SOURCES.get("ham10000")().read(tmp_path)
    metadata = tmp_path / "HAM10000_metadata.csv"
    metadata.write_text(metadata.read_text().replace("synthetic", "histo", 1))
    with pytest.raises(DataError, match="lists images that are not synthetic"):
        SOURCES.get("synthetic")().read(tmp_path)
