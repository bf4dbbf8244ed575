"""What PyTorch computes in training is what lesiontk does: pixels, mixtures, losses and steps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lesiontk.data.augment import AUGMENTATIONS
from lesiontk.errors import UsageError
from lesiontk.models import ARCHITECTURES
from lesiontk.models.architecture import build_model
from lesiontk.recipe import TrainSection
from lesiontk.system.frameworks import import_tensorflow
from lesiontk.train.distillation import SoftTargets, soften
from lesiontk.train.feature_losses import FEATURE_LOSSES, TeacherFeatures
from lesiontk.train.imbalance import IMBALANCE, choose_imbalance, make_loss, weigh_and_shift
from lesiontk.train.optimizer import layer_rates, make_optimizer, make_schedule
from tests.loose_modules import load_benchmark

torch = pytest.importorskip("torch", reason="PyTorch is no dependency: pip install torch")
augment, losses, optimizer = (
    load_benchmark(f"gpu.{name}") for name in ("augment", "losses", "optimizer")
)
SEED = [3, 4]
COUNTS = np.array([10, 200, 30])
UNMIXED = [name for name in IMBALANCE if choose_imbalance(name).mix is None]


def channels_first(images: Any) -> Any:
    return torch.from_numpy(np.array(images)).permute(0, 3, 1, 2)


def channels_last(images: Any) -> Any:
    return images.permute(0, 2, 3, 1).numpy()


@pytest.mark.parametrize("name", list(AUGMENTATIONS))
@pytest.mark.parametrize("width", [32, 40, 43])
def test_an_augmentation_is_that_of_lesiontk(name: str, width: int) -> None:
    tf, size, count = import_tensorflow(), 32, 40  # every change of trivial_augment
    images = np.random.default_rng(2).uniform(0, 255, (count, size, width, 3)).astype(np.float32)
    rows = (2, count) if name == "flips" else (12, count)
    unit = np.zeros((12, count), np.float32)
    unit[: rows[0]] = tf.random.stateless_uniform(rows, SEED)
    noise = tf.random.stateless_normal([count, size, size, 1], [SEED[0], SEED[1] + (1 << 28)])
    draws = augment.Draws(torch.from_numpy(unit), channels_first(noise))
    ours = augment.find_augmentation(name)(channels_first(images), draws)
    theirs = np.asarray(AUGMENTATIONS.get(name)(tf.constant(images), tf.constant(SEED)))
    np.testing.assert_allclose(channels_last(ours), theirs, atol=0.01)
    if name != "none":
        assert np.abs(theirs - images[:, :, :size]).mean() > 1


def test_an_augmentation_of_a_plugin_is_refused() -> None:
    with pytest.raises(UsageError, match=r"'flip' has no version in PyTorch; .* mean 'flips'"):
        augment.find_augmentation("flip")


def test_smaller_pictures_are_those_of_lesiontk() -> None:
    images = np.random.default_rng(2).uniform(0, 255, (2, 48, 60, 3)).astype(np.float32)
    theirs = import_tensorflow().image.resize(images, [32, 40], antialias=True)
    ours = augment.resize(channels_first(images), 32, 40)
    np.testing.assert_allclose(channels_last(ours), theirs, atol=0.01)


@pytest.mark.parametrize("choice", ["mixup:0.4", "cutmix"])
def test_a_mixture_is_that_of_lesiontk(choice: str) -> None:
    tf, draw = import_tensorflow(), np.random.default_rng(3)
    images = draw.uniform(0, 255, (6, 16, 16, 3)).astype(np.float32)
    targets = np.eye(3, dtype=np.float32)[draw.integers(0, 3, 6)]
    theirs = choose_imbalance(choice).mix(images, targets, SEED)
    (mixture,) = losses.list_mixtures(["none", choice, "logit_adjustment"])
    gamma = tf.random.stateless_gamma([2, 6], SEED, mixture.alpha) + 1e-7
    share = torch.tensor(np.array(gamma[0] / (gamma[0] + gamma[1])))
    center = torch.tensor(np.array(tf.random.stateless_uniform([2, 6], SEED)))
    pixels, shares = mixture.mix(channels_first(images), torch.from_numpy(targets), share, center)
    np.testing.assert_allclose(channels_last(pixels), theirs[0], atol=0.01)
    np.testing.assert_allclose(shares.numpy(), theirs[1], atol=1e-5)
    assert np.abs(shares.numpy() - targets).max() > 0.01


def make_batch() -> tuple[Any, Any, Any]:
    """Return logits, mixed targets and a teacher's probabilities of 16 images of 3 classes."""
    draw = np.random.default_rng(3)
    logits = draw.normal(0, 2, (16, 3)).astype(np.float32)
    targets = draw.dirichlet(np.full(3, 0.3), 16).astype(np.float32)
    return logits, targets, draw.dirichlet(np.ones(3), 16).astype(np.float32)


def loss_of_lesiontk(names: list[str], *, taught: bool) -> tuple[Any, Any]:
    """Return the mean loss and its gradient in the logits."""
    tf, (logits, targets, said) = import_tensorflow(), make_batch()
    choices = [choose_imbalance(name) for name in names]
    loss = make_loss(choices, COUNTS)
    if taught:
        loss = SoftTargets(said, 2.0, 0.7).make_loss(loss, *weigh_and_shift(choices, COUNTS))
        targets = np.hstack([targets, soften(said, 2.0)])
    logits = tf.constant(logits)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        value = tf.reduce_mean(loss(targets, logits))
    return float(value), tape.gradient(value, logits)


@pytest.mark.parametrize("taught", [False, True], ids=["alone", "taught"])
@pytest.mark.parametrize(
    "names",
    [*([name] for name in UNMIXED), ["sqrt_sampling", "focal_loss:1.5", "logit_adjustment"]],
)
def test_a_loss_is_that_of_lesiontk(names: list[str], taught: bool) -> None:
    logits, targets, said = map(torch.from_numpy, make_batch())
    logits.requires_grad_(True)
    loss = losses.ClassificationLoss(names, COUNTS, temperature=2.0, weight=0.7)
    value = loss(logits, targets, losses.soften(said, 2.0) if taught else None)
    value.backward()
    expected, gradient = loss_of_lesiontk(names, taught=taught)
    assert float(value.detach()) == pytest.approx(expected, rel=1e-4)
    np.testing.assert_allclose(logits.grad.numpy(), gradient, rtol=1e-4, atol=1e-7)


def test_another_loss_is_noticed() -> None:
    logits, targets, _ = map(torch.from_numpy, make_batch())
    plain = losses.ClassificationLoss(["none"], COUNTS)(logits, targets)
    for names in (["class_weight"], ["focal_loss"], ["logit_adjustment"], ["label_smoothing"]):
        other, _ = loss_of_lesiontk(names, taught=False)
        assert float(plain) != pytest.approx(other, rel=1e-3)


@pytest.mark.parametrize(
    "weights", [{"feature": 0.5}, {"relational": 2.0}, {"feature": 0.5, "relational": 2.0}]
)
def test_a_loss_between_features_is_that_of_lesiontk(weights: dict[str, float]) -> None:
    tf, draw = import_tensorflow(), np.random.default_rng(6)
    own, teacher = (draw.normal(size=(8, n)).astype(np.float32) for n in (5, 7))
    ours = losses.FeatureLosses(weights, 5, 7)
    features = torch.from_numpy(own).requires_grad_(True)
    value = ours(features, torch.from_numpy(teacher))
    value.backward()
    theirs, variable = TeacherFeatures(7, weights), tf.Variable(own)
    with tf.GradientTape() as tape:
        outputs = [variable]
        if ours.projection is not None:
            outputs.append(variable @ ours.projection.weight.detach().numpy().T)
        expected = tf.reduce_mean(theirs.measure(tf.concat(outputs, 1), tf.constant(teacher)))
    assert float(value.detach()) == pytest.approx(float(expected), rel=1e-5)
    np.testing.assert_allclose(features.grad.numpy(), tape.gradient(expected, variable), atol=1e-6)
    assert np.abs(features.grad.numpy()).max() > 1e-3


def test_every_loss_between_features_is_known_and_one_of_a_plugin_is_refused() -> None:
    assert set(losses.COMPARISONS) == set(FEATURE_LOSSES)
    with pytest.raises(UsageError, match=r"'featur' has no version in PyTorch.* mean 'feature'"):
        losses.FeatureLosses({"featur": 1.0}, 3, 3)


def test_steps_are_those_of_lesiontk() -> None:
    section = TrainSection(lowest_rate=0.3, weight_decay=0.05, ema=0.9)
    model = build_model(ARCHITECTURES.get("cnn"), image_size=32, classes=3)
    theirs = make_optimizer(section, model, 0.01)
    names = [layer.name for layer in model.layers for _ in layer.trainable_weights]
    shares = layer_rates(list(dict.fromkeys(names)), section.lowest_rate)
    weights = [
        torch.nn.Parameter(torch.from_numpy(v.numpy().copy())) for v in model.trainable_variables
    ]
    ours = optimizer.AdamW(weights, [shares[name] for name in names], section.weight_decay)
    averages = optimizer.WeightAverages(weights, section.ema)
    draw, before = np.random.default_rng(5), [w.detach().clone() for w in weights]
    for _ in range(3):
        gradients = [
            draw.normal(0, 1e-3, tuple(v.shape)).astype(np.float32)
            for v in model.trainable_variables
        ]
        theirs.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        for weight, gradient in zip(weights, gradients, strict=True):
            weight.grad = torch.from_numpy(gradient)
        ours.set_rate(0.01)
        ours.step()
        averages.update()
    for weight, start, variable in zip(weights, before, model.trainable_variables, strict=True):
        np.testing.assert_allclose(weight.detach().numpy(), variable.numpy(), atol=1e-6)
        assert (weight - start).abs().max() > 0.005
    theirs.finalize_variable_values(model.trainable_variables)
    averages.assign()
    for weight, variable in zip(weights, model.trainable_variables, strict=True):
        np.testing.assert_allclose(weight.detach().numpy(), variable.numpy(), atol=1e-6)


@pytest.mark.parametrize("schedule", ["cosine", "constant"])
def test_the_rate_is_that_of_lesiontk(schedule: str) -> None:
    section = TrainSection(epochs=6, head_epochs=1, warmup_epochs=0.5)
    section = section.model_copy(update={"schedule": schedule})
    theirs = make_schedule(section, steps=8, epochs=5)
    for step in range(40):
        expected = float(theirs(step)) if callable(theirs) else theirs
        assert optimizer.rate_at(section, step / 40) == pytest.approx(expected, rel=1e-4, abs=1e-9)


def test_without_momentum_the_weights_are_no_averages() -> None:
    weight = torch.nn.Parameter(torch.ones(3))
    averages = optimizer.WeightAverages([weight], 0.0)
    averages.update()
    averages.assign()
    assert torch.equal(weight, torch.ones(3))
