"""The procedural lesions: fixed by their seeds, told apart by structure, laid out as HAM10000."""

from __future__ import annotations

import csv
import hashlib
from collections import Counter
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from lesiontk.data.synthetic.dataset import DIAGNOSES, render_view, write_synthetic_dataset
from lesiontk.data.synthetic.lesions import PAINTERS
from lesiontk.data.synthetic.structures import Skin
from lesiontk.errors import DataError

SIZE = 48
LESIONS = 30

Pixels = NDArray[np.float64]


@lru_cache
def first_views(diagnosis: str) -> Pixels:
    """First views [LESIONS, SIZE, SIZE, 3] of as many lesions, 0 to 255."""
    views = [render_view(diagnosis, lesion, 0, SIZE) for lesion in range(LESIONS)]
    return np.stack(views).astype(np.float64)


def distance_from_middle(size: int = SIZE) -> Pixels:
    """Distance of every pixel [size, size] from the middle, 1 at the edges' centres."""
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    away: Pixels = np.hypot(x, y)
    return away


def ring_colours(pictures: Pixels) -> Pixels:
    """Mean and deviation of colour in five rings, [N, 5 * 2 * 3]: blind to rotation."""
    rings = np.minimum(distance_from_middle(pictures.shape[1]) * 5, 4).astype(int)
    parts = [pictures[:, rings == ring] for ring in range(5)]
    return np.concatenate([f(part, axis=1) for part in parts for f in (np.mean, np.std)], axis=1)


def accuracy_of_nearest_mean(features: list[Pixels]) -> float:
    """Share of the second half of each class that lies nearest its own first half's mean."""
    half = LESIONS // 2
    spread = np.concatenate(features).std(axis=0)
    means = np.stack([group[:half].mean(axis=0) for group in features]) / spread
    hits = [
        np.argmin(np.linalg.norm(means - sample / spread, axis=1)) == label
        for label, group in enumerate(features)
        for sample in group[half:]
    ]
    return float(np.mean(hits))


def skin(size: int, pixels_per_unit: float) -> Skin:
    """Upright skin with the lesion's centre in the pixel at the upper left."""
    v, u = np.mgrid[:size, :size].astype(np.float32) / np.float32(pixels_per_unit)
    return Skin(u, v, np.array([[pixels_per_unit, 0, 0], [0, pixels_per_unit, 0]], np.float64))


def metadata(directory: Path) -> list[dict[str, str]]:
    with (directory / "HAM10000_metadata.csv").open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def hashes(directory: Path) -> dict[str, str]:
    return {
        str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hundred lesions of 18 pixels, small but enough for shares."""
    directory = tmp_path_factory.mktemp("synthetic")
    write_synthetic_dataset(directory, lesions=100, image_size=18, seed=5)
    return directory


@pytest.mark.parametrize("diagnosis", DIAGNOSES)
def test_the_same_arguments_give_the_same_picture(diagnosis: str) -> None:
    once, again = (render_view(diagnosis, 11, 2, 40) for _ in range(2))
    assert once.dtype == np.uint8
    assert once.shape == (40, 40, 3)
    np.testing.assert_array_equal(once, again)


@pytest.mark.parametrize("size", [16, 17, 33, 224])
def test_a_picture_has_the_size_asked_for(size: int) -> None:
    assert render_view("nv", 0, 0, size).shape == (size, size, 3)


@pytest.mark.parametrize("diagnosis", DIAGNOSES)
def test_another_lesion_another_view_and_another_diagnosis_are_other_pictures(
    diagnosis: str,
) -> None:
    other_diagnosis = DIAGNOSES[DIAGNOSES.index(diagnosis) - 1]
    base = render_view(diagnosis, 4, 0, SIZE).astype(float)
    for other in ((diagnosis, 5, 0), (diagnosis, 4, 1), (other_diagnosis, 4, 0)):
        assert np.abs(render_view(*other, SIZE) - base).mean() > 5


@pytest.mark.parametrize("diagnosis", DIAGNOSES)
def test_a_lesion_is_the_same_at_another_resolution(diagnosis: str) -> None:
    coarse, fine = (
        PAINTERS[diagnosis](skin(size, scale), np.random.default_rng(3))
        for size, scale in ((24, 24.0), (48, 48.0))
    )
    # Coats are left out, for vessels are strokes, which a coarse grid rounds.
    np.testing.assert_allclose(coarse.melanin, fine.melanin[::2, ::2], atol=1e-3)
    np.testing.assert_allclose(coarse.blood, fine.blood[::2, ::2], atol=1e-3)
    assert np.ptp(coarse.melanin) + np.ptp(coarse.blood) > 0.1


@pytest.mark.parametrize("diagnosis", DIAGNOSES)
def test_two_views_of_a_lesion_are_more_alike_than_two_lesions(diagnosis: str) -> None:
    def against_the_skin(pictures: Pixels) -> Pixels:
        corners = pictures[:, distance_from_middle() > 1].mean(axis=1)
        return ring_colours(pictures / corners[:, None, None])

    second_views = [render_view(diagnosis, lesion, 1, SIZE) for lesion in range(LESIONS)]
    first = against_the_skin(first_views(diagnosis))
    second = against_the_skin(np.stack(second_views).astype(np.float64))
    apart = np.linalg.norm(first[:, None] - second[None], axis=2)
    # By chance a lesion's own second view is nearer than half of the others.
    nearer = (apart < np.diag(apart)[:, None]).mean()
    assert nearer < 0.2


def test_structure_tells_the_diagnoses_apart_far_better_than_mean_colour() -> None:
    by_rings = accuracy_of_nearest_mean([ring_colours(first_views(name)) for name in DIAGNOSES])
    by_mean = accuracy_of_nearest_mean([first_views(name).mean(axis=(1, 2)) for name in DIAGNOSES])
    assert by_rings > 0.4  # chance is 1/7
    assert by_mean < 0.35
    assert by_rings > by_mean + 0.15


def test_melanoma_is_less_symmetric_than_a_naevus() -> None:
    def asymmetry(pictures: Pixels) -> float:
        grey = pictures.mean(axis=3)
        inside = distance_from_middle() < 0.6
        return float(np.median(np.abs(grey - grey[:, ::-1, ::-1])[:, inside].mean(axis=1)))

    assert asymmetry(first_views("mel")) > 1.3 * asymmetry(first_views("nv"))


def test_dermatofibroma_is_pale_in_the_middle_of_a_dark_ring() -> None:
    away = distance_from_middle()

    def paleness(name: str) -> float:
        grey = first_views(name).mean(axis=3)
        ring = grey[:, (away > 0.3) & (away < 0.5)].mean(axis=1)
        return float(np.median(grey[:, away < 0.15].mean(axis=1) - ring))

    assert paleness("df") > 0 > paleness("nv")


def test_vascular_lesions_are_red_where_keratoses_are_brown() -> None:
    def redness(name: str) -> float:
        middle = first_views(name)[:, distance_from_middle() < 0.25].mean(axis=1)
        return float(np.median(middle[:, 0] / middle[:, 1]))

    assert redness("vasc") > 1.2 * redness("bkl")


def test_basal_cell_carcinoma_has_blue_grey_in_pink() -> None:
    def bluest(name: str) -> float:
        pictures = first_views(name)[:, distance_from_middle() < 0.6]
        return float(np.mean(np.percentile(pictures[..., 2] - pictures[..., 0], 98, axis=1)))

    assert bluest("bcc") > bluest("akiec") + 8


def test_the_layout_is_that_of_ham10000(dataset: Path) -> None:
    rows = metadata(dataset)
    columns = ["lesion_id", "image_id", "dx", "dx_type", "age", "sex", "localization"]
    assert list(rows[0]) == columns
    assert [row["image_id"] for row in rows] == [f"SYNIMG_{n:07d}" for n in range(1, len(rows) + 1)]
    lesions = list(dict.fromkeys(row["lesion_id"] for row in rows))
    assert lesions == [f"SYN_{n:07d}" for n in range(1, 101)]
    assert {row["dx_type"] for row in rows} == {"synthetic"}
    parts = {path.stem: path.parent.name for path in dataset.rglob("*.jpg")}
    assert set(parts) == {row["image_id"] for row in rows}
    assert set(parts.values()) == {"HAM10000_images_part_1", "HAM10000_images_part_2"}


def test_pictures_are_jpegs_of_four_to_three(dataset: Path) -> None:
    for path in sorted(dataset.rglob("*.jpg"))[:5]:
        with Image.open(path) as picture:
            assert (picture.format, picture.mode, picture.size) == ("JPEG", "RGB", (24, 18))


def test_a_lesion_has_one_to_three_images_and_one_patient(dataset: Path) -> None:
    rows = metadata(dataset)
    views = Counter(row["lesion_id"] for row in rows)
    assert set(views.values()) == {1, 2, 3}
    assert 1.4 < len(rows) / len(views) < 1.8
    patients = {(r["lesion_id"], r["dx"], r["age"], r["sex"], r["localization"]) for r in rows}
    assert len(patients) == len(views)


def test_ages_are_whole_years_in_a_float_and_some_are_missing(dataset: Path) -> None:
    ages = {row["age"] for row in metadata(dataset)}
    assert "" in ages
    assert all(5 <= float(age) <= 85 for age in ages - {""})


def test_diagnoses_are_imbalanced_but_none_is_rare(dataset: Path) -> None:
    first_70 = [row for row in metadata(dataset) if row["lesion_id"] <= "SYN_0000070"]
    counts = Counter({row["lesion_id"]: row["dx"] for row in first_70}.values())
    assert set(counts) == set(DIAGNOSES)
    assert min(counts.values()) >= 5
    assert counts.most_common(1) == [("nv", 21)]


def test_seven_lesions_are_one_of_each(tmp_path: Path) -> None:
    write_synthetic_dataset(tmp_path, lesions=7, image_size=16, seed=0)
    assert {row["dx"] for row in metadata(tmp_path)} == set(DIAGNOSES)


def test_a_larger_set_begins_with_the_smaller(dataset: Path, tmp_path: Path) -> None:
    write_synthetic_dataset(tmp_path, lesions=9, image_size=18, seed=5)
    small, large = metadata(tmp_path), metadata(dataset)
    assert small == large[: len(small)]
    pictures = {name: digest for name, digest in hashes(tmp_path).items() if name.endswith("jpg")}
    assert pictures.items() <= hashes(dataset).items()


def test_writing_twice_changes_no_byte_and_another_seed_changes_pictures(tmp_path: Path) -> None:
    def write(name: str, seed: int) -> dict[str, str]:
        write_synthetic_dataset(tmp_path / name, lesions=8, image_size=16, seed=seed)
        return hashes(tmp_path / name)

    assert write("a", 1) == write("a", 1) == write("b", 1)
    assert not set(write("c", 2).values()) & set(write("a", 1).values())


def test_progress_is_told_of_every_image(tmp_path: Path) -> None:
    steps: list[int] = []
    written = write_synthetic_dataset(
        tmp_path, lesions=7, image_size=16, seed=3, advance=steps.append
    )
    assert steps == [1] * written
    assert written == len(metadata(tmp_path)) == len(list(tmp_path.rglob("*.jpg")))


def test_a_set_that_was_cut_off_has_no_table_not_even_an_older_one(tmp_path: Path) -> None:
    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    write_synthetic_dataset(tmp_path, lesions=7, image_size=16, seed=3)
    with pytest.raises(KeyboardInterrupt):
        write_synthetic_dataset(tmp_path, lesions=7, image_size=16, seed=3, advance=interrupt)
    assert not (tmp_path / "HAM10000_metadata.csv").exists()


def test_images_of_another_set_are_refused_and_left_alone(tmp_path: Path) -> None:
    foreign = tmp_path / "HAM10000_images_part_1" / "ISIC_0024306.jpg"
    foreign.parent.mkdir()
    foreign.write_bytes(b"someone's picture")
    with pytest.raises(DataError, match="ISIC_0024306"):
        write_synthetic_dataset(tmp_path, lesions=7, image_size=16, seed=0)
    assert list(hashes(tmp_path)) == ["HAM10000_images_part_1/ISIC_0024306.jpg"]


def test_an_unknown_diagnosis_is_refused_with_the_nearest() -> None:
    with pytest.raises(DataError, match=r"'mell'; expected one of akiec, .* Did you mean 'mel'\?"):
        render_view("mell", 0, 0, 32)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nv", 0, 0, 15), "size is 15; expected at least 16"),
        (("nv", -1, 0, 32), "lesion_seed is -1; expected 0 or more"),
        (("nv", 0, -1, 32), "view is -1; expected 0 or more"),
    ],
)
def test_a_picture_that_cannot_be_is_refused(
    arguments: tuple[str, int, int, int], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        render_view(*arguments)


@pytest.mark.parametrize(
    ("lesions", "image_size", "seed", "message"),
    [
        (6, 32, 0, "lesions is 6; expected at least 7"),
        (7, 15, 0, "image_size is 15; expected at least 16"),
        (7, 32, -2, "seed is -2; expected 0 or more"),
    ],
)
def test_a_set_that_cannot_be_is_refused_before_anything_is_written(
    tmp_path: Path, lesions: int, image_size: int, seed: int, message: str
) -> None:
    target = tmp_path / "set"
    with pytest.raises(DataError, match=message):
        write_synthetic_dataset(target, lesions=lesions, image_size=image_size, seed=seed)
    assert not target.exists()
