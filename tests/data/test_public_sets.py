"""Public data sets, and folders as public scripts leave them: read as what they are, or refused."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from lesiontk.data.decode import ImageError
from lesiontk.data.reader import ImageReader
from lesiontk.data.sources import SOURCES, detect_source
from lesiontk.data.sources.files import list_files
from lesiontk.data.sources.source import SourceTable
from lesiontk.data.sources.table import read_table
from lesiontk.data.tasks import load_task
from lesiontk.errors import DataError
from tests.data.sample_files import encode_rgb, write_images

HAM = "lesion_id,image_id,dx,dx_type,age,sex,localization"


def read(name: str, folder: Path) -> SourceTable:
    assert detect_source(folder) == name
    return SOURCES.get(name)().read(folder)


def labels(table: SourceTable, task: str) -> list[str]:
    chosen = load_task(task)
    return [chosen.labels[chosen.label_index(r.diagnosis, r.coarser)] for r in table.records]


def write_table(folder: Path, text: str, name: str = "table.csv") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)


# ------------------------------------------------------------------------------ data sets


def test_isic_2020_has_patients_and_says_at_least_benign_or_malignant(tmp_path: Path) -> None:
    write_table(
        tmp_path,
        "image_name,patient_id,sex,age_approx,anatom_site_general_challenge,diagnosis,"
        "benign_malignant,target\n"
        "ISIC_1,IP_1,male,45.0,torso,unknown,benign,0\n"
        "ISIC_2,IP_1,female,50.0,head/neck,melanoma,malignant,1\n"
        "ISIC_3,IP_2,,,,nevus,benign,0\n"
        "ISIC_4,IP_3,,,,lentigo NOS,benign,0\n",
        "train.csv",
    )
    write_table(tmp_path, "image_name,target\nISIC_9,0\n", "sample_submission.csv")
    write_images(tmp_path / "jpeg" / "train", *(f"ISIC_{n}.jpg" for n in (1, 2, 3, 4)))
    table = read("csv", tmp_path)
    assert [r.patient_id for r in table.records] == ["IP_1", "IP_1", "IP_2", "IP_3"]
    assert [r.diagnosis for r in table.records] == ["benign", "melanoma", "nevus", "lentigo nos"]
    assert labels(table, "malignancy") == ["benign", "malignant", "benign", "benign"]
    assert table.lesion_ids_known
    with pytest.raises(DataError, match="diagnosis 'benign' has no label in the task seven_class"):
        labels(table, "seven_class")


@pytest.mark.parametrize(
    "text",
    ["image_name,target\nA,0\nB,1\n", "image_name,benign_malignant\nA,benign\nB,malignant\n"],
)
def test_benign_or_malignant_alone_is_a_diagnosis(tmp_path: Path, text: str) -> None:
    write_table(tmp_path, text)
    write_images(tmp_path, "A.jpg", "B.jpg")
    table = read("csv", tmp_path)
    assert labels(table, "malignancy") == ["benign", "malignant"]
    assert not table.lesion_ids_known


def test_numbers_of_more_than_two_classes_stay_numbers(tmp_path: Path) -> None:
    write_table(tmp_path, "image_name,target\nA,0\nB,1\nC,2\n")
    write_images(tmp_path, "A.jpg", "B.jpg", "C.jpg")
    assert [r.diagnosis for r in read("csv", tmp_path).records] == ["0", "1", "2"]


def test_unknown_is_a_diagnosis_for_a_task_that_has_it(tmp_path: Path) -> None:
    write_table(tmp_path, "image_name,diagnosis,benign_malignant\nA,unknown,benign\nB,melanoma,\n")
    write_images(tmp_path, "A.jpg", "B.jpg")
    task = tmp_path / "task.yaml"
    task.write_text("title: t\nlabels: [x, y]\ncritical: y\nmapping: {unknown: x, melanoma: y}\n")
    table = read("csv", tmp_path)
    assert [(r.diagnosis, r.coarser) for r in table.records] == [
        ("benign", ("unknown",)),
        ("melanoma", ()),
    ]
    assert labels(table, str(task)) == ["x", "y"]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("A,melanoma,benign,", "benign_malignant is 'benign', which is benign, and diagnosis is"),
        ("A,nevus,,1", "diagnosis is 'nevus', which is benign, and target is '1', which is mali"),
        ("A,,malignant,0", "target is '0', which is benign, and benign_malignant is 'malignant'"),
    ],
)
def test_a_row_that_contradicts_itself_is_named(tmp_path: Path, row: str, words: str) -> None:
    write_table(
        tmp_path,
        f"image_name,diagnosis,benign_malignant,target\nB,nevus,benign,0\n{row}\n".replace(
            ",\n", ",1\n" if row.startswith("A,melanoma") else ",0\n"
        ),
    )
    write_images(tmp_path, "A.jpg", "B.jpg")
    with pytest.raises(DataError, match=f"table.csv, row 3: {words}"):
        read("csv", tmp_path)


def test_sets_that_differ_on_actinic_keratoses_are_not_contradictory(tmp_path: Path) -> None:
    write_table(
        tmp_path, "image_name,diagnosis,benign_malignant\nA,actinic keratosis,benign\nB,mel,\n"
    )
    write_images(tmp_path, "A.jpg", "B.jpg")
    assert labels(read("csv", tmp_path), "malignancy") == ["malignant", "malignant"]


def test_bcn20000_calls_its_images_bcn_filename(tmp_path: Path) -> None:
    write_table(
        tmp_path,
        "bcn_filename,age_approx,anatom_site_general,diagnosis,lesion_id,capture_date,sex,split\n"
        "BCN_0000000001.jpg,55.0,anterior torso,MEL,BCN_0003884,2012-05-16,male,train\n"
        "BCN_0000000003.jpg,50.0,anterior torso,SCC,BCN_0000019,2015-07-09,female,train\n",
    )
    write_images(tmp_path / "BCN_20k_train", "BCN_0000000001.jpg", "BCN_0000000003.jpg")
    table = read("csv", tmp_path)
    record = table.records[0]
    assert (record.image_id, record.lesion_id, record.age) == ("BCN_0000000001", "BCN_0003884", 55)
    assert labels(table, "seven_class") == ["mel", "akiec"]


def test_pad_ufes_20_has_patients_and_six_codes(tmp_path: Path) -> None:
    codes = ["ACK", "BCC", "MEL", "NEV", "SCC", "SEK"]
    rows = "".join(
        f"PAT_{n},{n * 3},{40 + n},FEMALE,NECK,{code},PAT_{n}_{n * 3}_7.png\n"
        for n, code in enumerate(codes)
    )
    write_table(tmp_path, f"patient_id,lesion_id,age,gender,region,diagnostic,img_id\n{rows}")
    for n in range(6):
        write_images(tmp_path / "images" / f"imgs_part_{n % 3}", f"PAT_{n}_{n * 3}_7.png")
    table = read("csv", tmp_path)
    assert labels(table, "seven_class") == ["akiec", "bcc", "mel", "nv", "akiec", "bkl"]
    record = table.records[1]
    assert (record.patient_id, record.lesion_id, record.site) == ("PAT_1", "3", "NECK")


def test_derm7pt_has_paths_below_its_images(tmp_path: Path) -> None:
    write_table(
        tmp_path,
        "case_num,diagnosis,seven_point_score,location,sex,clinic,derm,case_id\n"
        "1,clark nevus,0,back,male,NEL/NEL025.JPG,NEL/Nel026.jpg,x\n"
        "2,melanoma (in situ),4,face,female,NHL/NHL001.jpg,NHL/Nel026.jpg,y\n",
        "meta.csv",
    )
    write_images(tmp_path / "images", "NEL/Nel026.jpg", "NEL/NEL025.JPG", "NHL/NHL001.jpg")
    (tmp_path / "images" / "NHL" / "Nel026.jpg").write_bytes(encode_rgb("JPEG", quality=5))
    table = read("csv", tmp_path)
    assert [r.location for r in table.records] == [
        "images/NEL/Nel026.jpg",
        "images/NHL/Nel026.jpg",
    ]
    assert [r.lesion_id for r in table.records] == ["1", "2"]
    assert labels(table, "seven_class") == ["nv", "mel"]
    assert table.unlisted == 2


PAD = (
    "patient_id,lesion_id,diagnostic,img_id\nPAT_1,1,MEL,PAT_1_1_1.png\nPAT_2,2,NEV,PAT_2_2_2.png\n"
)
DERM7PT = "case_num,diagnosis,derm\n1,clark nevus,NEL/Nel026.jpg\n2,melanoma,NHL/Nhl001.jpg\n"


def write_pad(folder: Path) -> None:
    write_table(folder, PAD, "metadata.csv")
    write_images(folder / "images" / "imgs_part_1", "PAT_1_1_1.png")
    write_images(folder / "images" / "imgs_part_2", "PAT_2_2_2.png")


def write_derm7pt(folder: Path) -> None:
    write_table(folder / "meta", DERM7PT, "meta.csv")
    write_table(folder / "meta", "indexes\n1\n", "train_indexes.csv")
    write_images(folder / "images", "NEL/Nel026.jpg", "NHL/Nhl001.jpg")


def test_a_set_in_the_folder_that_it_was_unpacked_into_is_the_set(tmp_path: Path) -> None:
    write_pad(tmp_path / "PAD-UFES-20")
    assert labels(read("csv", tmp_path), "seven_class") == ["mel", "nv"]


def test_ham10000_in_a_folder_is_no_nameless_table(tmp_path: Path) -> None:
    write_table(tmp_path / "x", f"{HAM}\nH1,ISIC_1,nv,histo,45,male,back\n")
    write_images(tmp_path / "x", "ISIC_1.jpg")
    with pytest.raises(DataError, match="x has the layout of ham10000: specify that folder"):
        detect_source(tmp_path)


def test_a_table_in_a_folder_of_tables_describes_the_images_beside_it(tmp_path: Path) -> None:
    write_derm7pt(tmp_path)
    table = read("csv", tmp_path)
    assert labels(table, "seven_class") == ["nv", "mel"]
    assert [r.lesion_id for r in table.records] == ["1", "2"]


@pytest.mark.parametrize(
    ("write", "inner"),
    [(write_pad, "a/PAD-UFES-20"), (write_derm7pt, "release_v0"), (write_derm7pt, "a/release_v0")],
)
def test_folders_of_images_beside_a_table_of_diagnoses_are_no_classes(
    tmp_path: Path, write: Callable[[Path], None], inner: str
) -> None:
    write(tmp_path / inner)
    with pytest.raises(DataError) as caught:
        detect_source(tmp_path)
    named = tmp_path / Path(inner).parts[0]
    named = named if inner == "a/PAD-UFES-20" else tmp_path / inner
    assert f"{named} has the layout of csv: specify that folder." in str(caught.value)


def test_folders_of_images_in_parts_are_no_classes(tmp_path: Path) -> None:
    write_pad(tmp_path)
    (tmp_path / "metadata.csv").unlink()
    with pytest.raises(DataError, match="not a known data set"):
        detect_source(tmp_path)


def test_tables_in_the_folders_of_classes_leave_them_classes(tmp_path: Path) -> None:
    for name in ("melanoma", "nevus"):
        write_table(tmp_path / name, f"isic_id,diagnosis\n{name},x\n", "metadata.csv")
        write_images(tmp_path / name, f"{name}.jpg")
    assert [r.diagnosis for r in read("folder", tmp_path).records] == ["melanoma", "nevus"]


def test_a_set_that_holds_its_copy_is_asked_which(tmp_path: Path) -> None:
    for folder in ("", "data"):
        for subset in ("train", "test"):
            write_images(tmp_path / folder / subset, "benign/1.jpg", "malignant/2.jpg")
    with pytest.raises(DataError) as caught:
        detect_source(tmp_path)
    for name in ("data", "train", "test"):
        assert f"{tmp_path / name} has the layout of folder: specify that folder" in str(
            caught.value
        )


def test_isic_cli_gives_the_finest_diagnosis_that_the_task_has(tmp_path: Path) -> None:
    write_table(
        tmp_path,
        "isic_id,attribution,age_approx,diagnosis_1,diagnosis_2,diagnosis_3,diagnosis_4,lesion_id\n"
        'A,x,50,Malignant,"Malignant melanocytic proliferations (Melanoma)","Melanoma, NOS",,L1\n'
        "B,x,50,Benign,Benign melanocytic proliferations,Nevus,Nevus with a rare name,L2\n"
        "C,x,50,Indeterminate,x,Solar or actinic keratosis,,L3\n"
        "D,x,50,Benign,Benign - Other,Something rare,,L4\n",
        "metadata.csv",
    )
    write_images(tmp_path, "A.jpg", "B.jpg", "C.jpg", "D.jpg")
    table = read("csv", tmp_path)
    assert labels(table, "malignancy") == ["malignant", "benign", "malignant", "benign"]
    chosen = load_task("seven_class")
    first = table.records[:3]
    assert [chosen.labels[chosen.label_index(r.diagnosis, r.coarser)] for r in first] == [
        "mel",
        "nv",
        "akiec",
    ]
    with pytest.raises(DataError, match="diagnosis 'something rare' has no label"):
        chosen.label_index(table.records[3].diagnosis, table.records[3].coarser)


# ------------------------------------------------------------------------------ files


def test_ham10000_ids_may_end_as_files_do(tmp_path: Path) -> None:
    write_table(tmp_path, f"{HAM}\nHAM_1,ISIC_1.jpg,nv,histo,45,male,back\n")
    write_images(tmp_path, "ISIC_1.JPG")
    assert read("ham10000", tmp_path).records[0].image_id == "ISIC_1"


@pytest.mark.parametrize("copies", [[], ["ham10000_images_part_1"]])
def test_an_archive_alone_is_read_in_place(tmp_path: Path, copies: list[str]) -> None:
    with zipfile.ZipFile(tmp_path / "archive.zip", "w") as archive:
        archive.writestr(
            "HAM10000_metadata.csv",
            f"{HAM}\nH1,ISIC_1,nv,histo,45,male,back\nH2,ISIC_2,mel,histo,,,\n",
        )
        archive.writestr("hmnist_8_8_L.csv", "pixel0000,label\n1,2\n")
        for folder in ["HAM10000_images_part_1", *copies]:
            for name in ("ISIC_1.jpg", "ISIC_2.jpg"):
                archive.writestr(f"{folder}/{name}", encode_rgb("JPEG"))
    table = read("ham10000", tmp_path)
    assert table.records[0].location == "archive.zip::HAM10000_images_part_1/ISIC_1.jpg"
    assert (len(table.records), table.unlisted) == (2, 0)
    with ImageReader(tmp_path) as reader:
        assert reader.read(table.records[1].location) == encode_rgb("JPEG")


def test_an_archive_with_a_folder_for_each_class_is_asked_to_be_unpacked(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "data.zip", "w") as archive:
        archive.writestr("data/mel/1.jpg", encode_rgb("JPEG"))
    with pytest.raises(DataError, match="not a known data set"):
        detect_source(tmp_path)


@pytest.mark.parametrize(
    "subsets",
    [("train_dir", "val_dir"), ("base_dir/train_dir", "base_dir/val_dir"), ("Train", "Test"),
     ("data/training_set", "data/test_set"), ("train_images", "validation images")],
)  # fmt: skip
def test_folders_of_sides_are_no_classes(tmp_path: Path, subsets: tuple[str, str]) -> None:
    write_images(tmp_path / subsets[0], "mel/1.jpg", "nv/2.jpg", "nv/3.jpg")
    write_images(tmp_path / subsets[1], "mel/4.jpg", "nv/5.jpg")
    table = read("folder", tmp_path)
    assert sorted((r.image_id, r.diagnosis) for r in table.records) == [
        ("1", "mel"),
        ("2", "nv"),
        ("3", "nv"),
        ("4", "mel"),
        ("5", "nv"),
    ]


@pytest.mark.parametrize("name", ["train_dir", "mel/../val", "test"])
def test_a_class_beside_a_side_is_refused(tmp_path: Path, name: str) -> None:
    write_images(tmp_path, "mel/1.jpg", f"{Path(name).name}/nv/2.jpg")
    with pytest.raises(DataError, match="not a known data set"):
        detect_source(tmp_path)
    with pytest.raises(DataError, match="not named after a diagnosis"):
        SOURCES.get("folder")().read(tmp_path)


# ------------------------------------------------------------------------------ links


def test_a_linked_folder_belongs_to_the_data(tmp_path: Path) -> None:
    elsewhere, data = tmp_path / "elsewhere", tmp_path / "data"
    write_images(elsewhere, "ISIC_1.jpg", "deep/ISIC_2.jpg")
    write_table(data, f"{HAM}\nH1,ISIC_1,nv,histo,45,male,back\nH2,ISIC_2,mel,histo,,,\n")
    (data / "HAM10000_images_part_1").symlink_to(elsewhere)
    table = read("ham10000", data)
    assert [r.location for r in table.records] == [
        "HAM10000_images_part_1/ISIC_1.jpg",
        "HAM10000_images_part_1/deep/ISIC_2.jpg",
    ]
    with ImageReader(data) as reader:
        assert all(reader.read(r.location) for r in table.records)


def test_links_in_a_circle_end_and_pipes_are_no_files(tmp_path: Path) -> None:
    data, outside = tmp_path / "data", tmp_path / "outside"
    write_images(data, "mel/1.jpg", "nv/2.jpg")
    write_images(outside, "3.jpg")
    (data / "again").symlink_to(data)
    (data / "up").symlink_to(tmp_path)
    (data / "mel" / "nv").symlink_to(data / "nv")
    (outside / "back").symlink_to(data)
    (outside / "self").symlink_to(outside)
    (data / "nv" / "more").symlink_to(outside)
    (data / "nv" / "twice").symlink_to(outside)
    (data / "loop.jpg").symlink_to(data / "loop.jpg")
    os.mkfifo(data / "pipe.jpg")
    os.mkfifo(data / "pipe.zip")
    os.mkfifo(data / "pipe.csv")
    found = sorted(path.relative_to(data).as_posix() for path in list_files(data))
    assert found == ["mel/1.jpg", "nv/2.jpg", "nv/more/3.jpg"]
    assert len(read("folder", data).records) == 3


def test_what_is_called_as_an_image_and_is_none_is_listed_and_does_not_block(
    tmp_path: Path,
) -> None:
    write_images(tmp_path, "mel/1.jpg", "nv/2.jpg")
    os.mkfifo(tmp_path / "nv" / "pipe.jpg")
    (tmp_path / "nv" / "zero.jpg").symlink_to("/dev/zero")
    (tmp_path / "nv" / "loop.jpg").symlink_to("loop.jpg")
    reasons = {}
    with ImageReader(tmp_path) as reader:
        for record in read("folder", tmp_path).records:
            try:
                reader.read(record.location)
            except ImageError as error:
                reasons[record.image_id] = error.reason
    assert reasons == {"pipe": "unreadable", "zero": "refused", "loop": "unreadable"}


@pytest.mark.parametrize("name", [b"mel/\xff.jpg", b"m\xffl/1.jpg"])
def test_a_name_that_is_no_text_is_refused(tmp_path: Path, name: bytes) -> None:
    write_images(tmp_path, "mel/1.jpg", "nv/2.jpg")
    write_images(tmp_path, os.fsdecode(name))
    with pytest.raises(DataError, match=r"xff.* is the name of an image but not UTF-8"):
        read("folder", tmp_path)


def test_a_pipe_in_the_place_of_the_lesions_is_refused(tmp_path: Path) -> None:
    write_images(tmp_path, "mel/1.jpg", "nv/2.jpg")
    os.mkfifo(tmp_path / "lesions.csv")
    with pytest.raises(DataError, match=r"lesions\.csv is a named pipe; expected a regular file"):
        read("folder", tmp_path)


def test_a_pipe_in_the_place_of_the_table_is_named(tmp_path: Path) -> None:
    write_images(tmp_path, "1.jpg", "2.jpg")
    os.mkfifo(tmp_path / "HAM10000_metadata.csv")
    (tmp_path / "loop.csv").symlink_to("loop.csv")
    with pytest.raises(DataError) as caught:
        detect_source(tmp_path)
    assert "HAM10000_metadata.csv is a named pipe; expected a regular file" in str(caught.value)
    assert "loop.csv is a symbolic link that leads back to itself" in str(caught.value)


# ------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("hmnist_28_28_RGB.csv", "pixel0000,pixel0001,label\n1,2,3\n", "lists no image files"),
        ("numbers.csv", "pixel_1,pixel_2,label\n1,2,3\n", "numbers.csv lists no image files"),
        ("t.csv", "image_id dx\nISIC_1 nv\n", "t.csv has one column, 'image_id dx'; expected"),
        ("t.csv", "image_id,kind\nISIC_1,nv\n", "image_id, kind, none of them known as the "
                                                "diagnosis column: rename"),
        ("t.csv", "number,dx\nISIC_1,nv\n", "none of them known as the image column: rename "
                                            "it to image_id"),
    ],
)  # fmt: skip
def test_an_unsuitable_table_is_explained(tmp_path: Path, name: str, text: str, words: str) -> None:
    write_table(tmp_path, text, name)
    with pytest.raises(DataError) as caught:
        detect_source(tmp_path)
    assert words in str(caught.value)
    assert str(caught.value).endswith("It contains no image.")


def test_a_spreadsheet_in_the_place_of_the_table_is_named(tmp_path: Path) -> None:
    (tmp_path / "clinic.xlsx").write_bytes(b"PK")
    (tmp_path / "~$clinic.xlsx").write_bytes(b"PK")
    write_images(tmp_path / "images", "1.jpg")
    with pytest.raises(DataError) as caught:
        detect_source(tmp_path)
    assert str(caught.value).endswith(
        "\nclinic.xlsx is a spreadsheet, which is not supported: save it as 'CSV UTF-8'."
    )


def test_a_table_in_the_code_page_of_windows_is_asked_for_as_utf8(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_bytes("Läsion;dx\n".encode("cp1252"))
    with pytest.raises(
        DataError,
        match=r"table.csv is not a readable table .*: save it as 'CSV "
        r"UTF-8'\.",
    ):
        detect_source(tmp_path)


@pytest.mark.parametrize("line", ["sep=;\r\n", '"sep=;"\n', "\ufeffSEP=;\n"])
def test_a_table_of_excel_may_name_its_separator_and_write_commas_in_numbers(
    tmp_path: Path, line: str
) -> None:
    (tmp_path / "table.csv").write_text(
        f"{line}image_id;dx;age\nISIC_1;nävus;45,5\n", "utf-8", newline=""
    )
    write_images(tmp_path, "ISIC_1.jpg")
    table = read("csv", tmp_path)
    assert [(r.diagnosis, r.age) for r in table.records] == [("nävus", 45.5)]
    assert read_table(tmp_path / "table.csv").rows[0].line == 3


def test_a_table_without_its_images_says_so(tmp_path: Path) -> None:
    write_table(tmp_path, f"{HAM}\nH1,ISIC_1,nv,histo,45,male,back\n")
    with pytest.raises(
        DataError,
        match=r"lists 1 image \(ISIC_1\) and no matching file was "
        "found there;",
    ):
        read("ham10000", tmp_path)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le-bom"])
@pytest.mark.parametrize("delimiter", [",", "\t", ";", "|"])
def test_a_table_is_read_in_every_usual_encoding(
    tmp_path: Path, encoding: str, delimiter: str
) -> None:
    text = "image_id,dx\nISIC_1,nävus\n".replace(",", delimiter)
    bom = encoding == "utf-16-le-bom"
    data = b"\xff\xfe" + text.encode("utf-16-le") if bom else text.encode(encoding)
    (tmp_path / "table.csv").write_bytes(data)
    write_images(tmp_path, "ISIC_1.jpg")
    assert read("csv", tmp_path).records[0].diagnosis == "nävus"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"image_id,dx\nISIC_1,n\0v\n", "has null bytes, the first as character 20"),
        (b"image_id,dx\nISIC_1,\xff\n", "is not UTF-8 text"),
        (b"image_id,dx\nISIC_1,nv\nISIC_2," + b"x" * 200_000, "row 3: field larger than"),
        (b'image_id,dx\nISIC_1,"' + b"n,v\n" * 50_000, "an unclosed quote extends"),
        (b"image_id,dx\nISIC_1," + b"x" * 201 + b"\n", "dx has 201 characters; expected a diag"),
        (b"\xff\xfei\0m\0a\0g\0e\0,\0d\0x\0\n\0\xd8", "is not UTF-8 text"),
    ],
)
def test_a_damaged_table_is_refused_in_words(tmp_path: Path, data: bytes, words: str) -> None:
    (tmp_path / "table.csv").write_bytes(data)
    write_images(tmp_path, "ISIC_1.jpg")
    with pytest.raises(DataError, match=words):
        read("csv", tmp_path)


def test_a_damaged_archive_is_named(tmp_path: Path) -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("table.csv", "image_id,dx\nISIC_1,nv\n")
        archive.writestr("ISIC_1.jpg", encode_rgb("JPEG"))
    (tmp_path / "data.zip").write_bytes(stream.getvalue()[:-30])
    with pytest.raises(DataError, match=r"data.zip cannot be opened as a zip archive"):
        detect_source(tmp_path)
