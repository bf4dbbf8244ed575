"""The losses of labels and of lessons, against their formulas; need TensorFlow."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from lesiontk.data.images import ImageSet
from lesiontk.progress import NoProgress
from lesiontk.system.frameworks import import_tensorflow
from lesiontk.train.distillation import SoftTargets, soften
from lesiontk.train.imbalance import choose_imbalance, make_loss, weigh_and_shift
from lesiontk.train.loop import train_model
from tests.train.colours import COLOURS, build, make_images, make_section, score

COUNTS = np.array([10, 30, 60])
LOGITS = np.array([[1.0, 0.0, -1.0], [0.0, 2.0, 0.5], [-0.5, 0.5, 0.0]], np.float32)
TARGETS = np.array([0, 2, 1])


ONE_HOT = np.eye(3, dtype=np.float32)[TARGETS]


def compute_loss(*names: str, targets: NDArray[np.float32] = ONE_HOT) -> NDArray[np.float64]:
    loss = make_loss([choose_imbalance(name) for name in names], COUNTS)
    return np.asarray(loss(targets, LOGITS), np.float64)


def log_softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(logits - np.log(np.exp(logits).sum(axis=1, keepdims=True)))


PLAIN = -log_softmax(LOGITS.astype(np.float64))[np.arange(3), TARGETS]


def test_without_a_choice_the_loss_is_cross_entropy() -> None:
    np.testing.assert_allclose(compute_loss("none"), PLAIN, rtol=1e-5)


def test_class_weights_multiply_by_n_over_c_times_count() -> None:
    weights = np.array([100 / 30, 100 / 90, 100 / 180])
    np.testing.assert_allclose(compute_loss("class_weight"), PLAIN * weights[TARGETS], rtol=1e-5)


def test_focal_loss_multiplies_by_the_square_of_what_is_missing() -> None:
    missing = 1 - np.exp(-PLAIN)
    np.testing.assert_allclose(compute_loss("focal_loss"), PLAIN * missing**2, rtol=1e-4)


def test_logit_adjustment_adds_the_log_of_the_share() -> None:
    adjusted = log_softmax(LOGITS.astype(np.float64) + np.log(COUNTS / 100))
    expected = -adjusted[np.arange(3), TARGETS]
    np.testing.assert_allclose(compute_loss("logit_adjustment"), expected, rtol=1e-5)


def test_logit_adjustment_does_nothing_where_the_draw_is_balanced() -> None:
    both = compute_loss("logit_adjustment", "balanced_sampling")
    np.testing.assert_allclose(both, PLAIN, rtol=1e-5)


def test_choices_combine() -> None:
    weights = np.array([100 / 30, 100 / 90, 100 / 180])
    expected = PLAIN * (1 - np.exp(-PLAIN)) ** 2 * weights[TARGETS]
    np.testing.assert_allclose(compute_loss("class_weight", "focal_loss"), expected, rtol=1e-4)


def test_label_smoothing_spreads_a_part_over_all_classes() -> None:
    logs = -log_softmax(LOGITS.astype(np.float64))
    expected = 0.9 * PLAIN + 0.1 * logs.mean(axis=1)
    np.testing.assert_allclose(compute_loss("label_smoothing:0.1"), expected, rtol=1e-5)


def test_a_mixed_target_pays_in_shares() -> None:
    """Cross entropy and class weights are linear in the target; so is their sum over classes."""
    mixed = np.array([[0.7, 0.3, 0.0], [0.0, 0.0, 1.0], [0.0, 1.0, 0.0]], np.float32)
    logs = -log_softmax(LOGITS.astype(np.float64))
    np.testing.assert_allclose(compute_loss("none", targets=mixed), (mixed * logs).sum(axis=1))
    weights = np.array([100 / 30, 100 / 90, 100 / 180])
    expected = (mixed * logs).sum(axis=1) * (mixed @ weights)
    np.testing.assert_allclose(compute_loss("class_weight", targets=mixed), expected, rtol=1e-5)


def mix(alpha: float, seed: int = 1) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return what mixup makes of 400 flat images of value 0, 1, 2 ... and of one-hot targets."""
    blend = choose_imbalance(f"mixup:{alpha}").mix
    assert blend is not None
    images = np.arange(400, dtype=np.float32).reshape(-1, 1, 1, 1) * np.ones((1, 2, 2, 3))
    mixed, targets = blend(images.astype(np.float32), np.eye(400, dtype=np.float32), [seed, 0])
    return np.asarray(mixed)[:, 0, 0, 0], np.asarray(targets)


def test_mixup_blends_image_and_target_in_the_same_share() -> None:
    mixed, targets = mix(0.4)
    np.testing.assert_allclose(targets.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(targets @ np.arange(400), mixed, rtol=1e-3, atol=1e-2)
    assert ((targets > 0).sum(axis=1) <= 2).all()


def test_mixup_shares_are_from_the_beta_distribution() -> None:
    share = np.diag(mix(0.4)[1])
    assert share.mean() == pytest.approx(0.5, abs=0.08)
    assert share.var() == pytest.approx(1 / (4 * (2 * 0.4 + 1)), abs=0.03)
    assert np.diag(mix(20.0)[1]).var() < 0.02  # near one half each


def test_mixup_is_repeatable_by_seed() -> None:
    np.testing.assert_array_equal(mix(0.4)[0], mix(0.4)[0])
    assert not np.array_equal(mix(0.4)[0], mix(0.4, seed=2)[0])


def cut(alpha: float = 1.0, seed: int = 1) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return what CutMix makes of 200 flat images of value 0, 1, 2 ... and of one-hot targets."""
    blend = choose_imbalance(f"cutmix:{alpha}").mix
    assert blend is not None
    images = np.arange(200, dtype=np.float32).reshape(-1, 1, 1, 1) * np.ones((1, 20, 20, 3))
    mixed, targets = blend(images.astype(np.float32), np.eye(200, dtype=np.float32), [seed, 0])
    return np.asarray(mixed), np.asarray(targets)


def test_cutmix_puts_one_rectangle_of_the_neighbour_into_each_image() -> None:
    for number, image in enumerate(cut()[0][..., 0]):
        foreign = image != number
        assert set(image[foreign].tolist()) <= {float((number - 1) % 200)}
        rows, columns = foreign.any(axis=1), foreign.any(axis=0)
        np.testing.assert_array_equal(foreign, np.outer(rows, columns))
        for line in (rows, columns):  # one piece
            assert np.abs(np.diff(np.pad(line.astype(int), 1))).sum() <= 2


def test_cutmix_mixes_targets_by_area() -> None:
    mixed, targets = cut()
    own = (mixed[..., 0] == np.arange(200)[:, np.newaxis, np.newaxis]).mean(axis=(1, 2))
    np.testing.assert_allclose(np.diag(targets), own, atol=1e-6)
    np.testing.assert_allclose(targets.sum(axis=1), 1, rtol=1e-6)
    assert own.std() > 0.1


def test_cutmix_is_repeatable_by_seed() -> None:
    np.testing.assert_array_equal(cut()[0], cut()[0])
    assert not np.array_equal(cut()[0], cut(seed=2)[0])


# --------------------------------------------------------------------- lessons


def test_softening_is_a_softmax_at_another_temperature() -> None:
    logits = LOGITS.astype(np.float64)
    expected = np.exp(log_softmax(logits / 3))
    softened = soften(np.exp(log_softmax(logits)).astype(np.float32), 3.0)
    np.testing.assert_allclose(softened, expected, rtol=1e-4)


def test_a_student_pays_for_the_truth_and_for_the_lessons() -> None:
    """Hinton et al.: (1 - w) hard + w T**2 CE(lessons, softmax(logits / T))."""
    taught = soften(np.exp(log_softmax(LOGITS[::-1].astype(np.float64))).astype(np.float32), 2.0)
    loss = SoftTargets(taught, 2.0, 0.25).make_loss(
        make_loss([], COUNTS), *weigh_and_shift([], COUNTS)
    )
    received = np.asarray(loss(np.hstack([ONE_HOT, taught]), LOGITS), np.float64)
    soft = -(taught * log_softmax(LOGITS.astype(np.float64) / 2)).sum(axis=1)
    np.testing.assert_allclose(received, 0.75 * PLAIN + 0.25 * 4 * soft, rtol=1e-5)


BALANCING = [choose_imbalance("sqrt_class_weight"), choose_imbalance("logit_adjustment")]


def test_rare_classes_are_weighed_in_the_lessons_as_in_the_hard_loss() -> None:
    """A teacher that repeats the labels adds nothing to them."""
    weighed = [choose_imbalance("sqrt_class_weight")]
    hard = make_loss(weighed, COUNTS)
    for temperature in (1.0, 3.0):
        soft_targets = SoftTargets(ONE_HOT, temperature, 1.0)
        loss = soft_targets.make_loss(make_loss([], COUNTS), *weigh_and_shift(weighed, COUNTS))
        received = loss(np.hstack([ONE_HOT, ONE_HOT]), LOGITS * temperature)
        expected = temperature**2 * hard(ONE_HOT, LOGITS)
        np.testing.assert_allclose(received, expected, rtol=1e-5)


@pytest.mark.parametrize(("choices", "pulled"), [(["logit_adjustment"], False), ([], True)])
def test_lessons_pull_a_student_to_common_classes_only_where_nothing_is_done_for_rare_ones(
    choices: list[str], pulled: bool
) -> None:
    tf = import_tensorflow()
    chosen = [choose_imbalance(name) for name in choices]
    labels = np.eye(3, dtype=np.float32)[np.repeat(np.arange(3), COUNTS)]
    loss = SoftTargets(labels, 2.0, 1.0).make_loss(
        make_loss([], COUNTS), *weigh_and_shift(chosen, COUNTS)
    )
    logits = tf.Variable(np.zeros(3, np.float32))
    with tf.GradientTape() as tape:
        spread = tf.broadcast_to(logits, labels.shape)
        value = tf.reduce_mean(loss(np.hstack([labels, labels]), spread))
    pull = -np.asarray(tape.gradient(value, logits))
    assert (np.abs(pull).max() > 0.1) == pulled
    if not pulled:
        np.testing.assert_allclose(pull, 0, atol=1e-6)


def test_a_student_that_answers_as_its_teacher_has_nothing_to_gain() -> None:
    tf = import_tensorflow()
    said = soften(np.exp(log_softmax(LOGITS.astype(np.float64))).astype(np.float32), 2.0)
    soft_targets = SoftTargets(said, 2.0, 1.0)
    loss = soft_targets.make_loss(make_loss([], COUNTS), *weigh_and_shift(BALANCING, COUNTS))
    logits = tf.Variable(LOGITS)
    with tf.GradientTape() as tape:
        value = loss(np.hstack([ONE_HOT, said]), logits)
    np.testing.assert_allclose(tape.gradient(value, logits), 0, atol=1e-5)


def test_a_student_learns_from_its_teacher_what_the_labels_do_not_say(tmp_path: Path) -> None:
    """The labels are shuffled; the teacher knows the colours."""
    shuffled, honest = make_images(separable=False), make_images()
    shown = np.eye(3, dtype=np.float32)[true_colours(shuffled)]
    soft_targets = SoftTargets(soften(0.9 * shown + 0.1 / 3, 1.0), 1.0, 1.0)
    section = make_section(epochs=10)
    taught, _ = train_model(build, shuffled, section, make_folder(tmp_path, "a"), NoProgress(),
                            soft_targets=soft_targets)  # fmt: skip
    alone, _ = train_model(build, shuffled, section, make_folder(tmp_path, "b"), NoProgress())
    assert score(taught, honest) > 0.7 > score(alone, honest)


def test_a_student_learns_from_a_teacher_of_each_augmented_image(tmp_path: Path) -> None:
    """Its predictions of the plain images are wrong, and are not used."""
    shuffled, honest = make_images(separable=False), make_images()
    wrong = np.full((len(shuffled.targets), 3), 1 / 3, np.float32)

    def teach(pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        middle = pictures.mean(axis=(1, 2))
        nearest = np.linalg.norm(middle[:, np.newaxis] - COLOURS, axis=2).argmin(axis=1)
        return soften(0.9 * np.eye(3, dtype=np.float32)[nearest] + 0.1 / 3, 1.0)

    # Smoothing reads the static number of classes.
    smoothed = ("label_smoothing:0.05",)
    section = make_section(epochs=10, augment="flips", imbalance=smoothed)
    taught, _ = train_model(build, shuffled, section, make_folder(tmp_path, "a"), NoProgress(),
                            soft_targets=SoftTargets(wrong, 1.0, 1.0, teach))  # fmt: skip
    assert score(taught, honest) > 0.7


def true_colours(images: ImageSet) -> NDArray[np.int64]:
    middle = images.pixels.mean(axis=(1, 2))
    return np.linalg.norm(middle[:, np.newaxis] - COLOURS, axis=2).argmin(axis=1)


def make_folder(parent: Path, name: str) -> Path:
    (parent / name).mkdir()
    return parent / name
