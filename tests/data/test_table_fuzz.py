"""Tables and archives with random damage are read or refused in words, never anything else."""

from __future__ import annotations

import io
import random
import zipfile
from pathlib import Path

import pytest

from lesiontk.data.sources import SOURCES, detect_source
from lesiontk.data.sources.labelled import read_labelled_folder
from lesiontk.errors import DataError
from tests.data.sample_files import encode_rgb

TABLES = [
    b"lesion_id,image_id,dx,dx_type,age,sex,localization\nH1,A,nv,histo,45,male,back\n"
    b"H2,B,mel,histo,,,\n",
    b"image,MEL,NV,BCC,AKIEC,BKL,DF,VASC\nA,1,0,0,0,0,0,0\nB,0,1,0,0,0,0,0\n",
    b"image_name,patient_id,diagnosis,benign_malignant,target\nA,P,unknown,benign,0\n"
    b"B,Q,melanoma,malignant,1\n",
    b"\xef\xbb\xbfpath;label;lesion_id\r\na/A.jpg;nv;L1\r\nB.jpg;mel;L2\r\n",
    'isic_id\tdiagnosis_1\tdiagnosis_3\nA\tBenign\tNevus\nB\tMalignant\t"Melanoma, NOS"\n'.encode(
        "utf-16"
    ),
]
PIECES = [
    *(bytes([byte]) for byte in b',"\n\r\0;\t|/\\ 01'),
    b"..", b"\xff", b"nan", b"unknown", b"A", b"image", b"dx", b"target", b"1e309", b"-1", b"::",
    b"C:\\", b"\xe2\x80\xae", b"x" * 140_000,
]  # fmt: skip
NAMES = ["HAM10000_metadata.csv", "t.csv", "t.tab", "t", "lesions.csv"]
TRIES = 60


def damage(data: bytes, rng: random.Random) -> bytes:
    damaged = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 4, 8])):
        place = rng.randrange(len(damaged) + 1)
        match rng.randrange(4):
            case 0:
                damaged[place:place] = rng.choice(PIECES)
            case 1:
                del damaged[place : place + rng.randrange(1, 20)]
            case 2:
                damaged[place : place + 3] = rng.choice(PIECES)
            case _:
                damaged[place : place + 1] = bytes([rng.randrange(256)])
    return bytes(damaged)


def write_folder(folder: Path, rng: random.Random) -> Path:
    """Return the path of a damaged table, beside two pictures or with them in an archive."""
    (folder / "a").mkdir(parents=True)
    table, name = damage(rng.choice(TABLES), rng), rng.choice(NAMES)
    if rng.random() < 0.25:
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w") as archive:
            archive.writestr(name, table)
            archive.writestr(rng.choice(["x/A.jpg", "../A.jpg", "/A.jpg"]), encode_rgb("JPEG"))
        archived = stream.getvalue()
        (folder / "a.zip").write_bytes(damage(archived, rng) if rng.random() < 0.6 else archived)
        return folder / "a.zip"
    for picture in ("A.jpg", "B.jpg"):
        (folder / rng.choice([".", "a"]) / picture).write_bytes(encode_rgb("JPEG"))
    (folder / name).write_bytes(table)
    return folder / name


@pytest.mark.parametrize("seed", range(4))
def test_a_damaged_table_is_read_or_refused(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    ends = {"read": 0, "refused": 0}
    for number in range(TRIES):
        folder = tmp_path / str(number)
        table = write_folder(folder, rng)
        for read in (
            lambda: SOURCES.get(detect_source(folder))().read(folder),  # noqa: B023
            lambda: read_labelled_folder(folder, table),  # noqa: B023
        ):
            try:
                read()
            except DataError:
                ends["refused"] += 1
            else:
                ends["read"] += 1
    assert min(ends.values()) > 5
