"""Training on a problem that can be solved: scores, best epoch, exact resume."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lesiontk.errors import DataError
from lesiontk.evaluate.metrics import compute_metrics
from lesiontk.progress import NoProgress
from lesiontk.records import ValidationScores
from lesiontk.system.frameworks import import_keras, import_tensorflow
from lesiontk.train import loop
from lesiontk.train.checkpoints import TrainingState, read_state, restore_checkpoint
from lesiontk.train.imbalance import IMBALANCE
from lesiontk.train.loop import predict_probabilities, train_model
from lesiontk.train.training_set import make_training_set
from tests.train.colours import (
    SIZE,
    KilledError,
    KillingProgress,
    build,
    make_images,
    make_section,
    score,
    train,
)
from tests.train.events import read_scalars

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

    def remember(model: Any, *rest: Any) -> Any:
        weights.append(model.get_weights())
        return predict_probabilities(model, *rest)

    def score_by_script(*_: Any) -> ValidationScores:
        scores = {"balanced_accuracy": [0.3, 0.9, 0.5][len(weights) - 1], "log_loss": 1.0}
        return ValidationScores(1, scores)

    monkeypatch.setattr(loop, "predict_probabilities", remember)
    monkeypatch.setattr(loop, "score_probabilities", score_by_script)
    model, state = train(tmp_path, epochs=3)
    assert state.best_epoch == 2
    assert_weights_equal(model.get_weights(), weights[1])
    assert not weights_equal(model.get_weights(), weights[2])


@pytest.mark.parametrize("keep_recall", [0.0, 0.5, 1.0])
def test_the_recall_of_the_critical_class_is_kept(tmp_path: Path, keep_recall: float) -> None:
    """What cannot be learned is not found, unless its bias is raised."""
    images, section = make_images(separable=False), make_section(epochs=3)
    model, state = train_model(
        build,
        images,
        section,
        tmp_path,
        NoProgress(),
        keep_recalls={images.critical: keep_recall},
    )
    rows = images.indices("validation")
    said = predict_probabilities(model, images.pixels, rows, 16)
    values = compute_metrics(images.targets[rows], said, images.labels)
    told = state.curves[state.best_epoch - 1]
    recall = float(values[f"recall[{images.critical}]"][0])
    assert recall == pytest.approx(told[f"recall[{images.critical}]"])
    assert recall >= keep_recall
    assert score(model, images) == pytest.approx(state.best_score, abs=1e-6)
    assert any(state.shifts) == (keep_recall == 1.0) or keep_recall == 0.5


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
    subsets = tuple(
        "test" if label == 1 and subset == "train" else subset
        for label, subset in zip(images.targets, images.subsets, strict=True)
    )
    with pytest.raises(DataError, match="training subset has no image of mel"):
        train(tmp_path, replace(images, subsets=subsets))


def test_a_training_that_diverges_says_what_to_change(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"diverged in epoch 1: .* Reduce train\.learning_rate"):
        train(tmp_path, learning_rate=1e30, schedule="constant")


# ---------------------------------------------------------------------- resume


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> TrainingState:
    """The course of a plain training of four epochs."""
    return train(tmp_path_factory.mktemp("plain"))[1]


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
    "augmented": {"augment": "dermoscopy"},
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
    plain: TrainingState, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(KilledError):
        train(tmp_path / "killed", progress=KillingProgress(10))

    def restore_model_alone(checkpoint: Any, scratch: Path, state: TrainingState) -> None:
        weights = import_tensorflow().train.Checkpoint(model=checkpoint.model)
        restore_checkpoint(weights, scratch, state)

    monkeypatch.setattr(loop, "restore_checkpoint", restore_model_alone)
    _, damaged = train(tmp_path / "killed")
    assert not curves_equal(plain, damaged)


def test_another_seed_takes_another_course(plain: TrainingState, tmp_path: Path) -> None:
    _, other = train(tmp_path, seed=2)
    assert not curves_equal(plain, other)


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


def test_an_epoch_goes_on_from_the_averages_of_the_one_before(
    plain: TrainingState, tmp_path: Path
) -> None:
    _, averaged = train(tmp_path, ema=0.99)
    losses = [[row["loss"] for row in state.curves] for state in (plain, averaged)]
    assert losses[0][0] == pytest.approx(losses[1][0], abs=1e-4)  # nothing was averaged yet
    assert losses[0][1] < losses[1][1] - 0.01  # averages lag behind


def test_averaging_scores_the_averaged_weights(plain: TrainingState, tmp_path: Path) -> None:
    """With a momentum near 1 the average stays where it began, whatever the weights do."""
    model, averaged = train(tmp_path, ema=0.99999)
    assert plain.curves[-1]["log_loss"] < averaged.curves[-1]["log_loss"] - 0.1
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
    read = read_scalars(scratch / "tensorboard")
    assert {"loss", "balanced_accuracy", "recall_mel"} <= set(read)
    for row in state.curves:
        assert read["loss"][int(row["epoch"])] == pytest.approx(row["loss"], rel=1e-5)
        assert read["recall_mel"][int(row["epoch"])] == pytest.approx(row["recall[mel]"], rel=1e-5)


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


@pytest.fixture(scope="module")
def in_phases(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Any, TrainingState, dict[str, Any]]:
    """A model trained in two phases, its course, and how."""
    changes: dict[str, Any] = {"epochs": 3, "head_epochs": 1, "lowest_rate": 0.1, "ema": 0.8}
    model, state = train(tmp_path_factory.mktemp("phases"), **changes)
    return model, state, changes


@pytest.mark.parametrize("steps", [2, 6, 9])
def test_a_kill_in_either_phase_changes_nothing(
    in_phases: tuple[Any, TrainingState, dict[str, Any]], tmp_path: Path, steps: int
) -> None:
    """Four steps an epoch: the kill comes in the first phase, right after it, and in the second."""
    whole, course, changes = in_phases
    with pytest.raises(KilledError):
        train(tmp_path / "parts", progress=KillingProgress(steps), **changes)
    parts, resumed = train(tmp_path / "parts", **changes)
    assert resumed.curves == course.curves
    for a, b in zip(whole.get_weights(), parts.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


# --------------------------------------------------------------------- growing


def test_images_grow_in_equal_parts_of_the_epochs() -> None:
    training_set = make_training_set(make_images(), make_section(epochs=7, grow=(4, 8)))
    assert [training_set.image_size(epoch) for epoch in range(7)] == [4, 4, 4, 8, 8, 12, 12]
    for epoch in (0, 3, 6):
        pictures, _ = next(training_set.make_batches(epoch).as_numpy_iterator())
        assert pictures.shape == (16, *[training_set.image_size(epoch)] * 2, 3)


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
