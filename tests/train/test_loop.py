"""Training on a problem that can be solved: scores, best epoch, exact resume."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lesiontk.data.images import ImageSet
from lesiontk.errors import DataError
from lesiontk.evaluate.metrics import compute_metrics
from lesiontk.frameworks import import_keras, import_tensorflow
from lesiontk.models.architecture import Architecture, Normalisation, build_model
from lesiontk.progress import NoProgress
from lesiontk.recipe import TrainSection
from lesiontk.records import Preprocessing
from lesiontk.train import loop
from lesiontk.train.checkpoints import TrainingState, read_state, restore_checkpoint
from lesiontk.train.feed import make_feed
from lesiontk.train.imbalance import IMBALANCE, choose_imbalance, make_loss, weigh_and_shift
from lesiontk.train.lessons import Lessons, soften
from lesiontk.train.loop import predict_probabilities, train_model

COLOURS = np.array([(200, 90, 80), (90, 180, 80), (80, 90, 200)])
SIZE = 12


def make_images(*, separable: bool = True, count: int = 96) -> ImageSet:
    """Return three classes of coloured noise, told apart by colour unless it is shuffled."""
    generator = np.random.default_rng(0)
    targets = np.arange(count, dtype=np.int64) % 3
    shown = targets if separable else generator.permutation(targets)
    pixels = COLOURS[shown][:, np.newaxis, np.newaxis] + generator.normal(0, 30, (count, 1, 1, 3))
    pixels = pixels + generator.normal(0, 20, (count, SIZE, SIZE, 3))
    ids = tuple(f"image{i}" for i in range(count))
    return ImageSet(
        pixels=np.clip(pixels, 0, 255).astype(np.uint8),
        targets=targets,
        image_ids=ids,
        groups=ids,
        hashes=ids,
        sides=tuple("train" if i < count * 2 / 3 else "validation" for i in range(count)),
        labels=("bkl", "mel", "nv"),
        task="test",
        critical="mel",
        preprocessing=Preprocessing(SIZE),
        split_hash="0" * 64,
    )


def tiny_body(x: Any) -> Any:
    """One convolution, normalised: all that a resume must bring back."""
    layers = import_keras().layers
    x = layers.Conv2D(8, 3, 2, use_bias=False, name="conv")(x)
    return layers.ReLU(name="relu")(layers.BatchNormalization(momentum=0.8, name="bn")(x))


def build(size: int | None = SIZE) -> Any:
    architecture = Architecture("tiny", SIZE, Normalisation(1 / 128, (-1.0,) * 3), tiny_body)
    return build_model(architecture, image_size=size, classes=3, dropout=0.2)


def make_section(**changes: Any) -> TrainSection:
    plain: dict[str, Any] = {"epochs": 4, "batch_size": 16, "learning_rate": 0.02, "patience": 99}
    return TrainSection(**{**plain, **changes})


def train(
    scratch: Path, images: ImageSet | None = None, progress: Any = None, **changes: Any
) -> tuple[Any, TrainingState]:
    scratch.mkdir(exist_ok=True)
    section = make_section(**changes)
    return train_model(build, images or make_images(), section, scratch, progress or NoProgress())


def score(model: Any, images: ImageSet) -> float:
    """Return the validation balanced accuracy of a model as it is."""
    rows = images.indices("validation")
    probabilities = predict_probabilities(model, images.pixels, rows, 16)
    values = compute_metrics(images.targets[rows], probabilities, images.labels)
    return float(values["balanced_accuracy"][0])


class KilledError(Exception):
    """Stands for a power cut."""


class KillingProgress:
    """Ends the process, so to speak, after so many steps."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    @contextmanager
    def task(self, description: str, total: int | None) -> Iterator[Callable[..., None]]:
        def advance(steps: int, note: str = "") -> None:
            self.left -= steps
            if self.left < 0:
                raise KilledError

        yield advance


# -------------------------------------------------------------------- learning


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, TrainingState, Path]:
    """A model trained on the separable problem, its course, and where its checkpoints lie."""
    scratch = tmp_path_factory.mktemp("learned")
    model, state = train(scratch, epochs=12, ema=0.8)
    return model, state, scratch


def test_a_separable_problem_is_learned(learned: tuple[Any, TrainingState, Path]) -> None:
    _, state, _ = learned
    assert state.best_score > 0.9
    assert state.curves[-1]["loss"] < 0.5 * state.curves[0]["loss"]


def test_an_unlearnable_problem_is_not(tmp_path: Path) -> None:
    _, state = train(tmp_path, make_images(separable=False), epochs=6)
    assert state.best_score < 0.7


def test_the_weights_of_the_best_epoch_are_returned(
    learned: tuple[Any, TrainingState, Path],
) -> None:
    model, state, _ = learned
    scores = [row["balanced_accuracy"] for row in state.curves]
    assert state.best_score == max(scores)
    assert state.best_epoch == 1 + scores.index(max(scores))
    assert score(model, make_images()) == pytest.approx(state.best_score, abs=1e-6)


def test_the_best_epoch_may_be_an_early_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second of three epochs is declared the best; its weights must come back."""
    weights = []

    def score_by_script(model: Any, *_: Any) -> dict[str, float]:
        weights.append(model.get_weights())
        state = _[-1]
        value = {1: 0.3, 2: 0.9, 3: 0.5}[state.epoch + 1]
        state.epoch += 1
        if value > state.best_score:
            state.best_score, state.best_epoch = value, state.epoch
            model.save_weights(str(_[-2] / "best.weights.h5"))
        return {"balanced_accuracy": value, "log_loss": 1.0}

    monkeypatch.setattr(loop, "_validate", score_by_script)
    model, state = train(tmp_path, epochs=3)
    assert state.best_epoch == 2
    assert_weights_equal(model.get_weights(), weights[1])
    assert not weights_equal(model.get_weights(), weights[2])


def test_each_epoch_has_a_row_of_scores(learned: tuple[Any, TrainingState, Path]) -> None:
    _, state, _ = learned
    assert [row["epoch"] for row in state.curves] == list(range(1, 13))
    expected = {"epoch", "loss", "balanced_accuracy", "accuracy", "macro_auc", "log_loss"}
    assert all(set(row) == {*expected, "recall[mel]"} for row in state.curves)
    assert all(np.isfinite(list(row.values())).all() for row in state.curves)


def test_training_stops_when_patience_is_used_up(tmp_path: Path) -> None:
    _, state = train(tmp_path, epochs=30, patience=2, learning_rate=1e-9, schedule="constant")
    assert state.epoch == state.best_epoch + 2
    assert state.epoch < 30


def test_a_split_that_lacks_a_class_is_refused(tmp_path: Path) -> None:
    images = make_images()
    sides = tuple(
        "test" if label == 1 and side == "train" else side
        for label, side in zip(images.targets, images.sides, strict=True)
    )
    with pytest.raises(DataError, match="training split has no image of mel"):
        train(tmp_path, replace(images, sides=sides))


def test_a_training_that_diverges_says_what_to_change(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"diverged in epoch 1: .* Lower train\.learning_rate"):
        train(tmp_path, learning_rate=1e30, schedule="constant")


# ---------------------------------------------------------------------- resume


def weights_equal(first: list[NDArray[Any]], second: list[NDArray[Any]]) -> bool:
    return all(np.allclose(a, b, atol=1e-6, rtol=0) for a, b in zip(first, second, strict=True))


def assert_weights_equal(first: list[NDArray[Any]], second: list[NDArray[Any]]) -> None:
    for a, b in zip(first, second, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6, rtol=0)


def curves_equal(first: TrainingState, second: TrainingState) -> bool:
    return [row.keys() for row in first.curves] == [row.keys() for row in second.curves] and all(
        np.allclose(list(a.values()), list(b.values()), atol=1e-6)
        for a, b in zip(first.curves, second.curves, strict=True)
    )


RESUMED = {
    "plain": {},
    "averaged": {"ema": 0.9},
    "sampled": {"imbalance": ("balanced_sampling",), "schedule": "constant"},
}


@pytest.mark.parametrize("changes", RESUMED.values(), ids=RESUMED)
def test_a_killed_run_goes_on_as_if_nothing_had_happened(
    changes: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole_model, whole = train(tmp_path / "whole", **changes)
    steps = 64 // 16
    with pytest.raises(KilledError):  # in the middle of the third epoch
        train(tmp_path / "killed", progress=KillingProgress(2 * steps + 2), **changes)
    assert read_state(tmp_path / "killed").epoch == 2
    with caplog.at_level(logging.INFO, logger="lesiontk"):
        resumed_model, resumed = train(tmp_path / "killed", **changes)
    assert "training resumes after epoch 2" in caplog.text
    assert curves_equal(whole, resumed)
    assert_weights_equal(resumed_model.get_weights(), whole_model.get_weights())
    assert resumed.best_epoch == whole.best_epoch


def test_a_resume_that_lost_the_optimizer_would_be_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, whole = train(tmp_path / "whole")
    with pytest.raises(KilledError):
        train(tmp_path / "killed", progress=KillingProgress(10))

    def restore_model_alone(checkpoint: Any, scratch: Path, state: TrainingState) -> None:
        weights = import_tensorflow().train.Checkpoint(model=checkpoint.model)
        restore_checkpoint(weights, scratch, state)

    monkeypatch.setattr(loop, "restore_checkpoint", restore_model_alone)
    _, damaged = train(tmp_path / "killed")
    assert not curves_equal(whole, damaged)


def test_another_seed_takes_another_course(tmp_path: Path) -> None:
    _, first = train(tmp_path / "first", epochs=2)
    _, other = train(tmp_path / "other", epochs=2, seed=2)
    assert not curves_equal(first, other)


def test_a_kill_between_checkpoint_and_state_costs_one_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, whole = train(tmp_path / "whole", epochs=3)
    real, calls = json.dump, []

    def die_in_the_second_epoch(*arguments: Any) -> None:
        calls.append(1)
        if len(calls) == 2:
            raise KilledError
        real(*arguments)

    monkeypatch.setattr(json, "dump", die_in_the_second_epoch)
    with pytest.raises(KilledError):
        train(tmp_path / "killed", epochs=3)
    monkeypatch.undo()
    _, resumed = train(tmp_path / "killed", epochs=3)
    assert curves_equal(whole, resumed)


def test_a_finished_run_is_not_trained_again(learned: tuple[Any, TrainingState, Path]) -> None:
    model, state, scratch = learned
    again_model, again = train(
        scratch, epochs=12, ema=0.8, progress=KillingProgress(state.epoch * 4)
    )
    assert curves_equal(state, again)
    assert_weights_equal(again_model.get_weights(), model.get_weights())


def test_one_checkpoint_is_kept(learned: tuple[Any, TrainingState, Path]) -> None:
    _, state, scratch = learned
    names = {path.name.split(".")[0] for path in scratch.glob("checkpoint-*")}
    assert names == {f"checkpoint-{state.epoch}"}


# --------------------------------------------------------------------- options


def test_an_epoch_goes_on_from_the_averages_of_the_one_before(tmp_path: Path) -> None:
    _, raw = train(tmp_path / "raw")
    _, averaged = train(tmp_path / "averaged", ema=0.99)
    losses = [[row["loss"] for row in state.curves] for state in (raw, averaged)]
    assert losses[0][0] == pytest.approx(losses[1][0], abs=1e-4)  # nothing was averaged yet
    assert losses[0][1] < losses[1][1] - 0.01  # averages lag behind


def test_averaging_scores_the_averaged_weights(tmp_path: Path) -> None:
    """With a momentum near 1 the average stays where it began, whatever the weights do."""
    _, raw = train(tmp_path / "raw", epochs=4)
    model, averaged = train(tmp_path / "averaged", epochs=4, ema=0.99999)
    assert raw.curves[-1]["log_loss"] < averaged.curves[-1]["log_loss"] - 0.1
    kernel = model.get_layer("conv").get_weights()[0]
    import_keras().utils.set_random_seed(make_section().seed)
    np.testing.assert_allclose(kernel, build().get_layer("conv").get_weights()[0], atol=1e-3)


def test_mixed_precision_returns_a_float32_model(tmp_path: Path) -> None:
    model, state = train(tmp_path, epochs=8, mixed_precision=True)
    assert {layer.compute_dtype for layer in model.layers} == {"float32"}
    assert {weight.dtype.name for weight in model.weights} == {"float32"}
    assert state.best_score > 0.8
    assert score(model, make_images()) == pytest.approx(state.best_score, abs=0.1)
    assert import_keras().mixed_precision.global_policy().name == "float32"


def test_mixed_precision_trains_in_bfloat16(tmp_path: Path) -> None:
    model = loop._build_in_policy(build, make_section(mixed_precision=True))
    assert model.get_layer("conv").compute_dtype == "bfloat16"
    assert model.get_layer("logits").compute_dtype == "float32"


def test_every_imbalance_choice_can_be_trained_with(tmp_path: Path) -> None:
    """All at once: what none of them may do is to bring the loss to zero, infinity or nonsense."""
    _, state = train(tmp_path, epochs=2, imbalance=tuple(IMBALANCE))
    assert 0 < state.curves[-1]["loss"] < state.curves[0]["loss"] < 10


def test_tensorboard_reads_the_curves(learned: tuple[Any, TrainingState, Path]) -> None:
    _, state, scratch = learned
    tf = import_tensorflow()
    files = sorted(map(str, (scratch / "tensorboard").glob("events.out.tfevents.*")))
    read: dict[str, dict[int, float]] = {}
    for record in tf.data.TFRecordDataset(files).as_numpy_iterator():
        event = tf.compat.v1.Event.FromString(record)
        for value in event.summary.value:
            assert value.metadata.plugin_data.plugin_name == "scalars"
            read.setdefault(value.tag, {})[event.step] = float(tf.make_ndarray(value.tensor))
    assert {"loss", "balanced_accuracy", "recall_mel"} <= set(read)
    for row in state.curves:
        assert read["loss"][int(row["epoch"])] == pytest.approx(row["loss"], rel=1e-5)
        assert read["recall_mel"][int(row["epoch"])] == pytest.approx(row["recall[mel]"], rel=1e-5)


# ------------------------------------------------------------------------ loss

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


# ---------------------------------------------------------------------- phases


def weights_by_layer(model: Any) -> dict[str, list[NDArray[np.float32]]]:
    return {layer.name: layer.get_weights() for layer in model.layers if layer.weights}


def test_in_the_first_phase_only_the_last_layer_learns(tmp_path: Path) -> None:
    import_keras().utils.set_random_seed(1)
    import_keras().backend.experimental.enable_tf_random_generator()
    start = weights_by_layer(build())
    model, _ = train(tmp_path / "head", epochs=2, head_epochs=1, patience=1, learning_rate=1e-9)
    for name, before, after in (
        (name, start[name], after) for name, after in weights_by_layer(model).items()
    ):
        if name != "logits":
            for a, b in zip(before, after, strict=True):
                np.testing.assert_array_equal(a, b, err_msg=name)
    moved, _ = train(tmp_path / "whole", epochs=1)
    changed = [
        not np.array_equal(a, b)
        for name, after in weights_by_layer(moved).items()
        for a, b in zip(start[name], after, strict=True)
    ]
    assert all(changed)


@pytest.mark.parametrize("steps", [2, 6, 9])
def test_a_kill_in_either_phase_changes_nothing(tmp_path: Path, steps: int) -> None:
    """Four steps an epoch: the kill comes in the first phase, right after it, and in the second."""
    changes: dict[str, Any] = {"epochs": 3, "head_epochs": 1, "lowest_rate": 0.1, "ema": 0.8}
    whole, course = train(tmp_path / "whole", **changes)
    with pytest.raises(KilledError):
        train(tmp_path / "parts", progress=KillingProgress(steps), **changes)
    parts, resumed = train(tmp_path / "parts", **changes)
    assert resumed.curves == course.curves
    for a, b in zip(whole.get_weights(), parts.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


# --------------------------------------------------------------------- growing


def test_images_grow_in_equal_parts_of_the_epochs() -> None:
    feed = make_feed(make_images(), make_section(epochs=7, grow=(4, 8)))
    assert [feed.image_size(epoch) for epoch in range(7)] == [4, 4, 4, 8, 8, 12, 12]
    for epoch in (0, 3, 6):
        pictures, _ = next(feed.make_batches(epoch).as_numpy_iterator())
        assert pictures.shape == (16, *[feed.image_size(epoch)] * 2, 3)


def test_a_network_that_grew_takes_the_full_size_and_has_learned(tmp_path: Path) -> None:
    model, state = train(tmp_path, epochs=9, grow=(4, 8))
    assert model.input_shape == (None, SIZE, SIZE, 3)
    assert score(model, make_images()) == pytest.approx(state.best_score, abs=1e-6)
    assert state.best_score > 0.8


def test_a_kill_while_growing_changes_nothing(tmp_path: Path) -> None:
    whole, course = train(tmp_path / "whole", epochs=3, grow=(4, 8))
    with pytest.raises(KilledError):
        train(tmp_path / "parts", progress=KillingProgress(6), epochs=3, grow=(4, 8))
    parts, resumed = train(tmp_path / "parts", epochs=3, grow=(4, 8))
    assert curves_equal(course, resumed)
    for a, b in zip(whole.get_weights(), parts.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)  # traced anew: other rounding


# --------------------------------------------------------------------- lessons


def test_softening_is_a_softmax_at_another_temperature() -> None:
    logits = LOGITS.astype(np.float64)
    expected = np.exp(log_softmax(logits / 3))
    softened = soften(np.exp(log_softmax(logits)).astype(np.float32), 3.0)
    np.testing.assert_allclose(softened, expected, rtol=1e-4)


def test_a_student_pays_for_the_truth_and_for_the_lessons() -> None:
    """Hinton et al.: (1 - w) hard + w T**2 CE(lessons, softmax(logits / T))."""
    taught = soften(np.exp(log_softmax(LOGITS[::-1].astype(np.float64))).astype(np.float32), 2.0)
    loss = Lessons(taught, 2.0, 0.25).make_loss(make_loss([], COUNTS), *weigh_and_shift([], COUNTS))
    received = np.asarray(loss(np.hstack([ONE_HOT, taught]), LOGITS), np.float64)
    soft = -(taught * log_softmax(LOGITS.astype(np.float64) / 2)).sum(axis=1)
    np.testing.assert_allclose(received, 0.75 * PLAIN + 0.25 * 4 * soft, rtol=1e-5)


BALANCING = [choose_imbalance("sqrt_class_weight"), choose_imbalance("logit_adjustment")]


def test_rare_classes_are_weighed_in_the_lessons_as_in_the_hard_loss() -> None:
    """A teacher that repeats the labels adds nothing to them."""
    weighed = [choose_imbalance("sqrt_class_weight")]
    hard = make_loss(weighed, COUNTS)
    for temperature in (1.0, 3.0):
        lessons = Lessons(ONE_HOT, temperature, 1.0)
        loss = lessons.make_loss(make_loss([], COUNTS), *weigh_and_shift(weighed, COUNTS))
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
    loss = Lessons(labels, 2.0, 1.0).make_loss(
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
    lessons = Lessons(said, 2.0, 1.0)
    loss = lessons.make_loss(make_loss([], COUNTS), *weigh_and_shift(BALANCING, COUNTS))
    logits = tf.Variable(LOGITS)
    with tf.GradientTape() as tape:
        value = loss(np.hstack([ONE_HOT, said]), logits)
    np.testing.assert_allclose(tape.gradient(value, logits), 0, atol=1e-5)


def test_a_student_learns_from_its_teacher_what_the_labels_do_not_say(tmp_path: Path) -> None:
    """The labels are shuffled; the teacher knows the colours."""
    shuffled, honest = make_images(separable=False), make_images()
    shown = np.eye(3, dtype=np.float32)[true_colours(shuffled)]
    lessons = Lessons(soften(0.9 * shown + 0.1 / 3, 1.0), 1.0, 1.0)
    section = make_section(epochs=10)
    taught, _ = train_model(build, shuffled, section, make_folder(tmp_path, "a"), NoProgress(),
                            lessons=lessons)  # fmt: skip
    alone, _ = train_model(build, shuffled, section, make_folder(tmp_path, "b"), NoProgress())
    assert score(taught, honest) > 0.7 > score(alone, honest)


def true_colours(images: ImageSet) -> NDArray[np.int64]:
    middle = images.pixels.mean(axis=(1, 2))
    return np.linalg.norm(middle[:, np.newaxis] - COLOURS, axis=2).argmin(axis=1)


def make_folder(parent: Path, name: str) -> Path:
    (parent / name).mkdir()
    return parent / name
