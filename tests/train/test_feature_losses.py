"""Losses between pooled features, against NumPy; their projection trains and is dropped."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lesiontk.errors import UsageError
from lesiontk.progress import NoProgress
from lesiontk.system.frameworks import import_keras, import_tensorflow
from lesiontk.train import loop
from lesiontk.train.checkpoints import TrainingState, restore_checkpoint
from lesiontk.train.distillation import SoftTargets
from lesiontk.train.feature_losses import (
    FEATURE_LOSSES,
    PROJECTION,
    TeacherFeatures,
    pool_features,
    read_weights,
)
from lesiontk.train.gradient_accumulation import accumulate_gradients
from lesiontk.train.imbalance import make_loss, weigh_and_shift
from lesiontk.train.loop import train_model
from lesiontk.train.optimizer import make_optimizer
from tests.train.colours import KilledError, KillingProgress, build, make_images, make_section

Rows = NDArray[np.float64]
DRAW = np.random.default_rng(4)
STUDENT, TEACHER, WIDER = (DRAW.normal(size=(5, width)) for width in (4, 4, 7))


def unit(rows: Rows) -> Rows:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))


def cosine_distance(student: Rows, teacher: Rows) -> Rows:
    return np.asarray(1 - (unit(student) * unit(teacher)).sum(axis=1))


def similarity_distance(student: Rows, teacher: Rows) -> Rows:
    """N times the loss of Tung & Mori, written as there: 1/b^2 of the squared Frobenius norm."""
    ours, theirs = (unit(rows @ rows.T) for rows in (student, teacher))
    return np.asarray(((ours - theirs) ** 2).sum(axis=1))


REFERENCES: dict[str, tuple[Callable[[Rows, Rows], Rows], Rows]] = {
    "feature": (cosine_distance, TEACHER),
    "relational": (similarity_distance, WIDER),
}


def test_every_loss_has_a_reference() -> None:
    assert set(REFERENCES) == set(FEATURE_LOSSES)


@pytest.mark.parametrize("name", REFERENCES)
def test_a_loss_and_its_gradient_are_those_of_the_formula(name: str) -> None:
    tf, (formula, teacher) = import_tensorflow(), REFERENCES[name]
    features = tf.Variable(STUDENT)
    with tf.GradientTape() as tape:
        values = FEATURE_LOSSES.get(name).compare(features, tf.constant(teacher))
        total = tf.reduce_mean(values)
    np.testing.assert_allclose(values, formula(STUDENT, teacher), rtol=1e-9)
    expected, step = np.zeros_like(STUDENT), 1e-6
    for place in np.ndindex(STUDENT.shape):
        moved = np.zeros_like(STUDENT)
        moved[place] = step
        up, down = (formula(STUDENT + sign * moved, teacher).mean() for sign in (1, -1))
        expected[place] = (up - down) / (2 * step)
    np.testing.assert_allclose(tape.gradient(total, features), expected, atol=1e-8)
    assert np.abs(expected).max() > 1e-3


@pytest.mark.parametrize("name", REFERENCES)
def test_a_loss_is_zero_for_the_teacher_s_own_features_at_any_scale_and_not_for_others(
    name: str,
) -> None:
    compare = FEATURE_LOSSES.get(name).compare
    np.testing.assert_allclose(compare(3 * TEACHER, TEACHER), 0, atol=1e-12)
    assert np.mean(compare(STUDENT, TEACHER)) > 0.1


def test_relations_do_not_depend_on_the_axes_of_the_features() -> None:
    rotation = np.linalg.qr(DRAW.normal(size=(7, 7)))[0]
    compare = FEATURE_LOSSES.get("relational").compare
    np.testing.assert_allclose(compare(WIDER @ rotation, WIDER), 0, atol=1e-12)


def test_a_weight_follows_the_name() -> None:
    assert read_weights(("feature:0.5", "relational")) == {"feature": 0.5, "relational": 1.0}


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["featur"], "unknown feature loss 'featur'.*Did you mean 'feature'"),
        (["feature:0"], "'feature:0': expected a weight above 0, such as feature:0.5"),
        (["feature:nan"], "expected a weight above 0"),
        (["feature:much"], "expected a weight above 0"),
        (["feature", "feature:2"], "'feature' is given twice"),
    ],
)
def test_other_weights_are_refused(texts: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read_weights(texts)


@pytest.mark.parametrize("weights", [{"feature": 0.5, "relational": 2.0}, {"relational": 2.0}])
def test_the_losses_are_added_to_that_of_the_soft_targets(weights: dict[str, float]) -> None:
    counts, none = np.array([10, 30, 60]), weigh_and_shift([], np.array([10, 30, 60]))
    labels = np.eye(3)[[0, 1, 2, 2, 1]]
    logits, said = DRAW.normal(size=(5, 3)), DRAW.dirichlet(np.ones(3), 5)
    plain = SoftTargets(said.astype(np.float32), 2.0, 0.7)
    taught = replace(plain, features=TeacherFeatures(7, weights))
    targets = np.hstack([labels, said, WIDER]).astype(np.float32)
    projected = DRAW.normal(size=(5, 7))
    outputs = [logits, STUDENT, projected] if "feature" in weights else [logits, STUDENT]
    values = taught.make_loss(make_loss([], counts), *none)(
        targets, np.hstack(outputs).astype(np.float32)
    )
    expected = np.asarray(
        plain.make_loss(make_loss([], counts), *none)(targets[:, :6], logits.astype(np.float32))
    ) + weights["relational"] * similarity_distance(STUDENT, WIDER)
    expected += weights.get("feature", 0) * cosine_distance(projected, WIDER)
    np.testing.assert_allclose(values, expected, rtol=1e-5)


# ------------------------------------------------------------------------------------- training


def test_pooled_features_are_those_before_dropout() -> None:
    model = build()
    pooled = pool_features(model)
    kinds = [type(layer).__name__ for layer in model.layers]
    assert "Dropout" in kinds
    assert type(pooled.node.layer).__name__ == "GlobalAveragePooling2D"


def make_soft_targets(images: Any, weights: dict[str, float], width: int = 5) -> SoftTargets:
    """Return soft targets that say nothing, and features that are a function of the colour."""
    middle = images.pixels.mean(axis=(1, 2)) / 128 - 1
    axes = np.random.default_rng(0).normal(size=(3, width))
    features = (middle @ axes).astype(np.float32)
    flat = np.full((len(middle), 3), 1 / 3, np.float32)
    return SoftTargets(flat, 1.0, 1.0, features=TeacherFeatures(width, weights, features))


def distance_of_relations(model: Any, images: Any, soft_targets: SoftTargets) -> float:
    """Return the mean relational loss of the validation images."""
    assert soft_targets.features is not None
    assert soft_targets.features.values is not None
    rows = images.indices("validation")
    pool = import_keras().Model(model.input, pool_features(model))
    own = np.asarray(pool(images.pixels[rows].astype(np.float32)), np.float64)
    return float(similarity_distance(own, soft_targets.features.values[rows]).mean())


@pytest.mark.parametrize("weights", [{"feature": 1.0}, {"relational": 1.0}])
def test_a_student_learns_features_and_keeps_its_layers(
    weights: dict[str, float], tmp_path: Path
) -> None:
    images = make_images(separable=False)
    taught = make_soft_targets(images, weights)
    # The scores of all epochs are those of chance: the last epoch counts.
    section = make_section(epochs=12, ema=0.5)
    model, state = train_model(build, images, section, tmp_path, NoProgress(), soft_targets=taught)
    fresh = build()
    assert [layer.name for layer in model.layers] == [layer.name for layer in fresh.layers]
    first, last = state.curves[0]["loss"], state.curves[-1]["loss"]
    assert last - np.log(3) < 0.6 * (first - np.log(3))  # what flat soft targets cost is constant


def test_relations_of_new_images_become_those_of_the_teacher(tmp_path: Path) -> None:
    images = make_images()
    taught = make_soft_targets(images, {"relational": 3.0})
    alone = replace(taught, features=None)
    distances = []
    for number, soft_targets in enumerate((taught, alone)):
        folder = tmp_path / str(number)
        folder.mkdir()
        section = make_section(epochs=10)
        model, _ = train_model(
            build, images, section, folder, NoProgress(), soft_targets=soft_targets
        )
        distances.append(distance_of_relations(model, images, taught))
    assert distances[0] < 0.7 * distances[1]


RESUMED = {"epochs": 4, "ema": 0.9, "head_epochs": 1, "lowest_rate": 0.3}


def run(folder: Path, progress: Any = None, **changes: Any) -> TrainingState:
    folder.mkdir(exist_ok=True)
    images = make_images()
    taught = make_soft_targets(images, {"feature": 1.0, "relational": 1.0})
    section = make_section(**{**RESUMED, **changes})
    return train_model(
        build, images, section, folder, progress or NoProgress(), soft_targets=taught
    )[1]


def losses_of(state: TrainingState) -> list[float]:
    return [row["loss"] for row in state.curves]


def test_a_killed_training_goes_on_with_its_projection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(tmp_path / "whole")
    with pytest.raises(KilledError):
        run(tmp_path / "killed", KillingProgress(10))
    assert losses_of(run(tmp_path / "killed")) == pytest.approx(losses_of(whole), rel=1e-5)

    def forget_projection(checkpoint: Any, scratch: Path, state: TrainingState) -> None:
        parts = {"model": checkpoint.model}
        if hasattr(checkpoint, "optimizer"):
            parts["optimizer"] = checkpoint.optimizer
        restore_checkpoint(import_tensorflow().train.Checkpoint(**parts), scratch, state)

    with pytest.raises(KilledError):
        run(tmp_path / "damaged", KillingProgress(10))
    monkeypatch.setattr(loop, "restore_checkpoint", forget_projection)
    damaged = run(tmp_path / "damaged")
    assert losses_of(damaged) != pytest.approx(losses_of(whole), rel=1e-5)


@pytest.mark.parametrize("changes", [{"micro_batches": 2}, {"mixed_precision": True}])
def test_features_are_compared_in_parts_of_batches_and_in_bfloat16(
    changes: dict[str, Any], tmp_path: Path
) -> None:
    curves = run(tmp_path / "a", epochs=2, **changes).curves
    assert all(np.isfinite(row["loss"]) for row in curves)


def test_the_projection_has_the_whole_rate_and_the_layers_theirs() -> None:
    model, section = build(), make_section(lowest_rate=0.25, weight_decay=0.0)
    output = TeacherFeatures(5, {"feature": 1.0}).extend_output(model)
    training = accumulate_gradients(model, 1, output)
    optimizer = make_optimizer(section, training, 0.01)
    before = [variable.numpy() for variable in training.trainable_variables]
    gradients = [import_tensorflow().ones_like(v) for v in training.trainable_variables]
    optimizer.apply_gradients(zip(gradients, training.trainable_variables, strict=True))
    steps = {
        variable.name.partition("/")[0]: float(np.abs(variable.numpy() - old).max())
        for variable, old in zip(training.trainable_variables, before, strict=True)
    }
    assert steps[PROJECTION] == pytest.approx(0.01, rel=1e-3)
    assert steps["logits"] == pytest.approx(0.01, rel=1e-3)
    assert steps["conv"] == pytest.approx(0.0025, rel=1e-3)
