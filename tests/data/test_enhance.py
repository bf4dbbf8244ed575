"""Each enhancement does to a picture what its name says, and no more."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from lesiontk.data.enhance import ENHANCEMENTS, check_enhancements, enhance_image
from lesiontk.data.enhance.colour_constancy import remove_colour_cast
from lesiontk.data.enhance.colour_sharpening import sharpen_colours
from lesiontk.data.enhance.edge_detection import blend_edge_map
from lesiontk.data.enhance.edge_enhancement import enhance_edges
from lesiontk.data.enhance.hair_removal import fill_mask, remove_hair
from lesiontk.data.enhance.noise_reduction import reduce_noise
from lesiontk.data.preprocess import preprocess_image
from lesiontk.errors import DataError, UsageError
from lesiontk.records import Preprocessing
from tests.loose_modules import load_module

Image = NDArray[np.uint8]
GOLDEN = Path(__file__).parents[1] / "golden"
SIZES = [64, 128, 224, 512]
SKIN, LESION, HAIR = (205, 160, 140), (110, 65, 50), (45, 35, 30)


def draw_lesion(size: int) -> Image:
    """A brown disc with a soft border in the middle of skin."""
    rows, columns = (np.mgrid[:size, :size] - (size - 1) / 2) / size
    share = np.clip((0.25 - np.hypot(rows, columns)) / 0.02 + 0.5, 0, 1)[..., np.newaxis]
    return np.rint(share * LESION + (1 - share) * SKIN).astype(np.uint8)


def inside(size: int, low: float, high: float) -> NDArray[np.bool_]:
    """The ring between two distances from the middle, in shares of the picture."""
    distance = np.hypot(*(np.mgrid[:size, :size] - (size - 1) / 2)) / size
    return (low <= distance) & (distance < high)


def add_noise(image: Image, sigma: float) -> Image:
    noise = np.random.default_rng(5).normal(0, sigma, image.shape)
    return np.clip(np.rint(image + noise), 0, 255).astype(np.uint8)


def measure_steepness(image: Image) -> float:
    """The steepest step between neighbours in a row, in grey levels."""
    return float(np.abs(np.diff(image.astype(int).mean(axis=2), axis=1)).max())


# ------------------------------------------------------------------- the list


def test_an_empty_list_changes_nothing() -> None:
    image = draw_lesion(32)
    assert enhance_image(image, ()) is image
    picture = draw_lesion(40)
    np.testing.assert_array_equal(
        preprocess_image(picture, Preprocessing(32, enhance=())),
        preprocess_image(picture, Preprocessing(32)),
    )


def test_the_filters_follow_crop_and_resize_in_the_order_given() -> None:
    picture = add_noise(draw_lesion(90), 3)[:, :80]
    names = ("noise_reduction", "colour_sharpening")
    expected = preprocess_image(picture, Preprocessing(64))
    for name in names:
        expected = ENHANCEMENTS.get(name)(expected)
    received = preprocess_image(picture, Preprocessing(64, enhance=names))
    np.testing.assert_array_equal(received, expected)
    reversed_ = preprocess_image(picture, Preprocessing(64, enhance=names[::-1]))
    assert not np.array_equal(received, reversed_)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((32, 32), np.uint8),
        np.zeros((32, 32, 4), np.uint8),
        np.zeros((32, 33, 3), np.uint8),
        np.zeros((32, 32, 3), np.float32),
    ],
)
def test_anything_but_a_square_of_rgb_bytes_is_a_bug(image: Any) -> None:
    with pytest.raises(ValueError, match=r"expected uint8 \[S, S, 3\]"):
        enhance_image(image, ("hair_removal",))


def test_an_unknown_name_is_an_error_that_tells_the_nearest() -> None:
    for call in (check_enhancements, lambda names: enhance_image(draw_lesion(32), names)):
        with pytest.raises(UsageError, match=r"'hair_remove'.*Did you mean 'hair_removal'\?"):
            call(("colour_constancy", "hair_remove"))


def test_the_record_survives_json_and_reads_what_was_written_before_enhancements() -> None:
    record = Preprocessing(64, enhance=("hair_removal", "colour_constancy"))
    document = json.loads(json.dumps(asdict(record)))
    assert Preprocessing(**document) == record
    del document["enhance"]
    assert Preprocessing(**document) == Preprocessing(64)


@pytest.mark.parametrize("wrong", ["hair_removal", 7, ["hair_removal", 7], None])
def test_a_record_takes_nothing_but_a_list_of_names(wrong: Any) -> None:
    with pytest.raises(DataError, match="expected a list of names"):
        Preprocessing(64, enhance=wrong)


# -------------------------------------------------------------- golden vectors


def load_generator() -> ModuleType:
    return load_module(GOLDEN / "make_enhance.py")


DOCUMENT: dict[str, Any] = json.loads((GOLDEN / "enhance.json").read_text())
CASES: list[dict[str, Any]] = DOCUMENT["cases"]


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c['image_size']}-{'-'.join(c['enhance'])}")
def test_the_golden_vectors_hold(case: dict[str, Any]) -> None:
    picture = load_generator().make_lesion()
    assert hashlib.sha256(picture.tobytes()).hexdigest() == DOCUMENT["input_sha256"]
    enhanced = preprocess_image(
        picture, Preprocessing(case["image_size"], case["crop_mode"], enhance=case["enhance"])
    )
    for pixel in case["pixels"]:
        assert enhanced[pixel["y"], pixel["x"]].tolist() == pixel["rgb"]
    assert hashlib.sha256(enhanced.tobytes()).hexdigest() == case["output_sha256"]


def test_the_golden_vectors_tell_each_list_from_every_other() -> None:
    assert {name for case in CASES for name in case["enhance"]} == set(ENHANCEMENTS)
    assert len({case["output_sha256"] for case in CASES}) == len(CASES)


def test_the_generator_makes_the_file_that_is_checked_in() -> None:
    assert load_generator().make_document() == DOCUMENT


# ---------------------------------------------------------------- same bytes


@pytest.fixture
def opencv() -> Iterator[None]:
    """Restore what OpenCV is told for the whole process."""
    threads, optimized = cv2.getNumThreads(), cv2.useOptimized()
    yield
    cv2.setNumThreads(threads)
    cv2.setUseOptimized(optimized)


@pytest.mark.usefixtures("opencv")
@pytest.mark.parametrize("name", ENHANCEMENTS)
def test_neither_threads_nor_the_processor_change_a_byte(name: str) -> None:
    image = add_noise(load_generator().make_lesion()[:224, 40:264], 2)
    results = set()
    for threads, optimized in ((1, True), (4, True), (1, False)):
        cv2.setNumThreads(threads)
        cv2.setUseOptimized(optimized)
        results.add(enhance_image(image, (name,)).tobytes())
    assert len(results) == 1


# ------------------------------------------------------------ noise reduction


def judge_noise_reduction(reduce: Callable[[Image], Image], size: int) -> tuple[float, float]:
    """The share of the noise on plain skin that is left, and of a sharp step's height."""
    rows = np.arange(size) < size // 2
    clean = np.where(rows[:, np.newaxis, np.newaxis], SKIN, LESION).astype(np.uint8)
    clean = np.repeat(clean, size, axis=1)
    received = reduce(add_noise(clean, 2)).astype(float)
    plain = slice(4, size // 2 - 4)
    noise = (received - clean)[plain].std() / (add_noise(clean, 2).astype(float) - clean).std()
    step = received[size // 2 - 1].mean() - received[size // 2].mean()
    return float(noise), float(step / (np.mean(SKIN) - np.mean(LESION)))


@pytest.mark.parametrize("size", SIZES)
def test_noise_reduction_takes_noise_away_and_leaves_edges(size: int) -> None:
    noise, step = judge_noise_reduction(reduce_noise, size)
    assert noise < 0.5
    assert step > 0.97


def test_a_blur_takes_noise_away_and_edges_with_it() -> None:
    """The twin of the test above."""
    noise, step = judge_noise_reduction(
        lambda image: np.asarray(cv2.GaussianBlur(image, (0, 0), 1.0), np.uint8), 128
    )
    assert noise < 0.5
    assert step < 0.97


# --------------------------------------------------------------- hair removal


def draw_hairs(image: Image) -> Image:
    """The picture with a straight and a bent hair."""
    size = len(image)
    haired, thickness = image.copy(), size // 64
    cv2.line(haired, (size // 10, 0), (size * 8 // 10, size), HAIR, thickness)
    reach = size * 6 // 10
    cv2.ellipse(haired, (size, size // 2), (reach, reach), 0, 130, 230, HAIR, thickness)
    return haired


def measure_error(received: Image, expected: Image, where: NDArray[np.bool_]) -> float:
    return float(np.abs(received.astype(int) - expected)[where].mean())


@pytest.mark.parametrize("size", SIZES)
def test_hair_on_a_lesion_is_removed(size: int) -> None:
    picture = draw_lesion(4 * size)  # resized like a photograph: a hair has soft borders
    clean, haired = (
        preprocess_image(drawn, Preprocessing(size)) for drawn in (picture, draw_hairs(picture))
    )
    where = (clean != haired).any(axis=2)
    received = remove_hair(haired)
    assert measure_error(haired, clean, where) > 30, "the twin: with its hair it fails"
    assert measure_error(received, clean, where) < 5
    assert measure_error(received, clean, ~where) < 0.1


@pytest.mark.parametrize("size", SIZES)
def test_a_picture_without_hair_stays_as_it_is(size: int) -> None:
    clean = add_noise(draw_lesion(size), 2)
    np.testing.assert_array_equal(remove_hair(clean), clean)


@pytest.mark.parametrize("size", SIZES)
def test_what_is_dark_but_short_or_broad_is_no_hair(size: int) -> None:
    image = draw_lesion(size)
    for x in range(size // 8, size, size // 4):  # globules, as thin as a hair
        cv2.circle(image, (x, size // 2), max(1, size // 64), HAIR, -1)
    image[size // 10 : size // 10 + size // 8] = HAIR  # a band, as long as a hair
    np.testing.assert_array_equal(remove_hair(image), image)


def test_a_mask_is_filled_from_its_rim_and_nothing_else_is_touched() -> None:
    image = draw_lesion(64)
    mask = inside(64, 0.0, 0.1)
    filled = fill_mask(np.where(mask[..., np.newaxis], 255, image).astype(np.uint8), mask)
    np.testing.assert_array_equal(filled, image)  # the lesion is plain there


def test_a_picture_that_is_all_masked_stays_as_it_is() -> None:
    image = draw_lesion(32)
    np.testing.assert_array_equal(fill_mask(image, np.ones((32, 32), np.bool_)), image)


# ----------------------------------------------------------- colour sharpening


@pytest.mark.parametrize("size", SIZES)
def test_sharpening_makes_borders_steeper_and_keeps_the_mean(size: int) -> None:
    image = draw_lesion(size)
    sharpened = sharpen_colours(image)
    assert measure_steepness(sharpened) > 1.2 * measure_steepness(image)
    assert abs(sharpened.mean() - image.mean()) < 0.2
    far = inside(size, 0.0, 0.15) | inside(size, 0.35, 0.5)
    np.testing.assert_array_equal(sharpened[far], image[far])


def test_a_gain_makes_borders_steeper_and_shifts_the_mean() -> None:
    """The twin of the test above."""
    image = draw_lesion(128)
    brighter = np.clip(image * 1.24, 0, 255).astype(np.uint8)
    assert measure_steepness(brighter) > 1.2 * measure_steepness(image)
    assert abs(brighter.mean() - image.mean()) > 0.2


def test_sharpening_sharpens_a_border_between_colours_of_one_luminance() -> None:
    image = np.zeros((64, 64, 3), np.uint8)
    image[:, :32], image[:, 32:] = (150, 87, 100), (60, 133, 100)
    sharpened = sharpen_colours(image).astype(int)
    assert sharpened[:, 31, 0].min() > 150
    assert sharpened[:, 32, 0].max() < 60
    np.testing.assert_array_equal(enhance_edges(image), image)  # it looks at luminance alone


# ----------------------------------------------------------- edge enhancement


def measure_noise(image: Image) -> float:
    """Standard deviation on skin, away from the lesion, in grey levels."""
    return float(image[inside(len(image), 0.35, 0.5)].std(axis=0).mean())


@pytest.mark.parametrize("size", SIZES)
def test_edge_enhancement_makes_borders_steeper_and_leaves_the_noise_of_skin(size: int) -> None:
    image = draw_lesion(size)
    assert measure_steepness(enhance_edges(image)) > 1.1 * measure_steepness(image)
    noisy = add_noise(image, 2)
    assert measure_noise(enhance_edges(noisy)) < 1.25 * measure_noise(noisy)


def test_sharpening_raises_the_noise_of_skin() -> None:
    """The twin of the test above."""
    noisy = add_noise(draw_lesion(128), 2)
    assert measure_noise(sharpen_colours(noisy)) > 1.25 * measure_noise(noisy)


def test_edge_enhancement_keeps_the_differences_between_channels() -> None:
    image = draw_lesion(128)
    enhanced = enhance_edges(image)
    assert not np.array_equal(enhanced, image)
    np.testing.assert_array_equal(
        np.diff(enhanced.astype(int), axis=2), np.diff(image.astype(int), axis=2)
    )


# ------------------------------------------------------------- edge detection


@pytest.mark.parametrize("size", SIZES)
def test_edge_detection_draws_the_border_and_nothing_on_plain_skin(size: int) -> None:
    image = draw_lesion(size)
    edges = 2 * blend_edge_map(image).astype(int) - image
    far = inside(size, 0.0, 0.15) | inside(size, 0.35, 0.5)
    assert edges[inside(size, 0.245, 0.255)].min() > 150
    assert edges[far].max() <= 1


def test_edge_detection_keeps_what_colour_the_picture_has() -> None:
    image = draw_lesion(128)
    blended = blend_edge_map(image).astype(int)
    np.testing.assert_allclose(
        np.diff(blended, axis=2), np.diff(image.astype(int), axis=2) / 2, atol=1
    )


def test_an_edge_in_one_channel_is_an_edge() -> None:
    image = np.full((64, 64, 3), 100, np.uint8)
    image[:, 32:, 2] = 180
    edges = 2 * blend_edge_map(image).astype(int) - image
    assert edges[:, 31:33].min() > 200
    assert edges[:, :20].max() <= 1


# ----------------------------------------------------------- colour constancy


def draw_greys(size: int) -> Image:
    """Patches of every grey from 20 to 180."""
    greys = np.linspace(20, 180, size * size).reshape(size, size, 1)
    return np.repeat(greys, 3, axis=2).astype(np.uint8)


def measure_cast(image: Image) -> int:
    """How far the channels of a pixel lie apart, in grey levels."""
    return int(np.ptp(image.astype(int), axis=2).max())


def cast(image: Image, gains: tuple[float, float, float]) -> Image:
    return np.rint(image * np.array(gains)).astype(np.uint8)


@pytest.mark.parametrize("gains", [(1.3, 1.0, 0.8), (0.7, 1.0, 1.2), (1.0, 0.6, 1.0)])
def test_colour_constancy_makes_a_picture_neutral(gains: tuple[float, float, float]) -> None:
    tinted = cast(draw_greys(64), gains)
    assert measure_cast(tinted) > 40, "the twin: as it was it fails"
    assert measure_cast(remove_colour_cast(tinted)) <= 2


def test_colour_constancy_makes_one_picture_of_one_scene_in_two_lights() -> None:
    lesion = (draw_lesion(128) * 0.7).astype(np.uint8)
    lights = [cast(lesion, (1.2, 1.0, 0.9)), cast(lesion, (0.9, 1.0, 1.3))]
    before = np.abs(lights[0].astype(int) - lights[1]).mean()
    results = [remove_colour_cast(light).astype(float) for light in lights]
    results = [result / result.mean() for result in results]  # how bright it is is not estimated
    after = np.abs(results[0] - results[1]).mean() * lesion.mean()
    assert before > 15
    assert after < 1


def test_colour_constancy_makes_the_sixth_moments_equal_and_not_the_means() -> None:
    received = remove_colour_cast((draw_lesion(128) * 0.7).astype(np.uint8)).astype(float)
    moments = (received**6).mean(axis=(0, 1)) ** (1 / 6)
    np.testing.assert_allclose(moments, moments.mean(), rtol=0.01)
    means = received.mean(axis=(0, 1))
    assert np.ptp(means) > 0.01 * means.mean()


def test_a_neutral_picture_stays_as_it_is() -> None:
    np.testing.assert_array_equal(remove_colour_cast(draw_greys(64)), draw_greys(64))


def test_a_picture_with_an_empty_channel_stays_as_it_is() -> None:
    red = draw_lesion(32) * np.array([1, 0, 0], np.uint8)
    np.testing.assert_array_equal(remove_colour_cast(red), red)
