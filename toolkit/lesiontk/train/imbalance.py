"""Methods against class imbalance: registered choices that can be combined.

A choice may weight the sampling of training images, weight their loss, change the loss, soften the
targets or mix images. All take ``counts``, the number of training images in each class, int [C].
They are written ``name`` or ``name:strength``, such as ``focal_loss:1.5``.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lesiontk.data.batches import Mixture
from lesiontk.errors import UsageError
from lesiontk.registry import Registry
from lesiontk.system.frameworks import import_tensorflow

Counts = NDArray[np.int64]
ClassWeights = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Imbalance:
    """One choice; the parts that it does not change are None.

    `draw_weight` and `loss_weight` return one factor per class, [C]. `focus` multiplies the loss of
    an image by a function of the probability of its true class. `logit_shift` maps each class's
    share of the sampled images to the value added to its logit in training, [C]. `soften` maps
    targets (shares of the classes, float32 [N, C]) to softer ones. `mix` maps images float32 [N, S,
    S, 3], targets [N, C] and a seed int32 [2] to mixed ones of the same shapes.
    """

    draw_weight: Callable[[Counts], ClassWeights] | None = None
    loss_weight: Callable[[Counts], ClassWeights] | None = None
    focus: Callable[[Any], Any] | None = None
    logit_shift: Callable[[ClassWeights], ClassWeights] | None = None
    soften: Callable[[Any], Any] | None = None
    mix: Mixture | None = None


def weigh_inverse(counts: Counts) -> ClassWeights:
    """Return equal total weights for all classes: N / (C * n_c)."""
    return np.asarray(counts.sum() / (len(counts) * counts))


def weigh_inverse_root(counts: Counts) -> ClassWeights:
    """Return the geometric mean of natural and equal weights."""
    return np.sqrt(weigh_inverse(counts))


def weigh_effective_number(counts: Counts, beta: float = 0.999) -> ClassWeights:
    """Return (1 - beta) / (1 - beta**n), mean 1 (Cui et al., arXiv:1901.05555, eq. 4)."""
    weights = (1 - beta) / (1 - beta ** counts.astype(np.float64))
    return np.asarray(weights / weights.mean())


def keep_unweighted() -> Imbalance:
    """Return plain cross entropy on a plain shuffle."""
    return Imbalance()


def weigh_loss() -> Imbalance:
    """Return a loss weighted by `weigh_inverse`."""
    return Imbalance(loss_weight=weigh_inverse)


def weigh_loss_by_root() -> Imbalance:
    """Return a loss weighted by `weigh_inverse_root`."""
    return Imbalance(loss_weight=weigh_inverse_root)


def weigh_loss_by_effective_number(beta: float = 0.999) -> Imbalance:
    """Return a loss weighted by `weigh_effective_number`."""
    if not 0 <= beta < 1:
        raise ValueError("beta must be at least 0 and below 1")
    return Imbalance(loss_weight=lambda counts: weigh_effective_number(counts, beta))


def balance_sampling() -> Imbalance:
    """Return a sampling of every class equally often."""
    return Imbalance(draw_weight=weigh_inverse)


def balance_sampling_by_root() -> Imbalance:
    """Return a sampling of classes in proportion to the square roots of their counts."""
    return Imbalance(draw_weight=weigh_inverse_root)


def focus_on_hard(gamma: float = 2.0) -> Imbalance:
    """Return the focal loss, (1 - p)**gamma (Lin et al., arXiv:1708.02002, eq. 4)."""
    if gamma < 0:
        raise ValueError("gamma must not be negative")
    return Imbalance(focus=lambda probability: (1.0 - probability) ** gamma)


def adjust_logits(tau: float = 1.0) -> Imbalance:
    """Return logit adjustment: tau times the log of the share is added, so that the logits minimize
    the balanced error (Menon et al., arXiv:2007.07314, eq. 10)."""
    if tau <= 0:
        raise ValueError("tau must be above 0")
    return Imbalance(logit_shift=lambda shares: tau * np.log(shares))


def smooth_labels(share: float = 0.1) -> Imbalance:
    """Return label smoothing by a share of each target (Szegedy et al., arXiv:1512.00567, s. 7)."""
    if not 0 <= share < 0.5:
        raise ValueError("the share must be at least 0 and below 0.5")
    return Imbalance(soften=lambda targets: targets * (1 - share) + share / targets.shape[-1])


def mix_up(alpha: float = 0.2) -> Imbalance:
    """Return mixup: each image and target is blended with its neighbour in the batch, with shares
    from Beta(alpha, alpha) (Zhang et al., arXiv:1710.09412, eq. 1)."""
    if alpha <= 0:
        raise ValueError("alpha must be above 0")

    def mix(images: Any, targets: Any, seed: Any) -> tuple[Any, Any]:
        tf = import_tensorflow()
        draws = tf.random.stateless_gamma([2, tf.shape(images)[0]], seed, alpha) + 1e-7
        share = draws[0] / (draws[0] + draws[1])
        wide = share[:, tf.newaxis, tf.newaxis, tf.newaxis]
        # Batches are in random order, so the neighbour is a random image.
        mixed = wide * images + (1 - wide) * tf.roll(images, 1, 0)
        flat = share[:, tf.newaxis]
        return mixed, flat * targets + (1 - flat) * tf.roll(targets, 1, 0)

    return Imbalance(mix=mix)


def cut_mix(alpha: float = 1.0) -> Imbalance:
    """Return CutMix: a rectangle of each image comes from its neighbour in the batch, and the
    targets are mixed by area; its share is drawn from Beta(alpha, alpha) (Yun et al.,
    arXiv:1905.04899, eq. 1 and 2)."""
    if alpha <= 0:
        raise ValueError("alpha must be above 0")

    def mix(images: Any, targets: Any, seed: Any) -> tuple[Any, Any]:
        tf = import_tensorflow()
        count, size = tf.shape(images)[0], tf.shape(images)[1]
        draws = tf.random.stateless_gamma([2, count], seed, alpha) + 1e-7
        side = tf.sqrt(draws[1] / (draws[0] + draws[1]))
        center = tf.random.stateless_uniform([2, count], seed)
        pixel = (tf.range(size, dtype=tf.float32) + 0.5) / tf.cast(size, tf.float32)
        rows, columns = (
            tf.abs(pixel - position[:, tf.newaxis]) < side[:, tf.newaxis] / 2
            for position in tf.unstack(center)
        )
        inside = rows[:, :, tf.newaxis] & columns[:, tf.newaxis, :]
        share = tf.reduce_mean(tf.cast(inside, tf.float32), [1, 2])[:, tf.newaxis]
        # Batches are in random order, so the neighbour is a random image.
        mixed = tf.where(inside[..., tf.newaxis], tf.roll(images, 1, 0), images)
        return mixed, (1 - share) * targets + share * tf.roll(targets, 1, 0)

    return Imbalance(mix=mix)


IMBALANCE: Registry[Callable[..., Imbalance]] = Registry("imbalance choice")
IMBALANCE.register("none", "lesiontk.train.imbalance:keep_unweighted")
IMBALANCE.register("class_weight", "lesiontk.train.imbalance:weigh_loss")
IMBALANCE.register("sqrt_class_weight", "lesiontk.train.imbalance:weigh_loss_by_root")
IMBALANCE.register("effective_number", "lesiontk.train.imbalance:weigh_loss_by_effective_number")
IMBALANCE.register("balanced_sampling", "lesiontk.train.imbalance:balance_sampling")
IMBALANCE.register("sqrt_sampling", "lesiontk.train.imbalance:balance_sampling_by_root")
IMBALANCE.register("focal_loss", "lesiontk.train.imbalance:focus_on_hard")
IMBALANCE.register("logit_adjustment", "lesiontk.train.imbalance:adjust_logits")
IMBALANCE.register("label_smoothing", "lesiontk.train.imbalance:smooth_labels")
IMBALANCE.register("mixup", "lesiontk.train.imbalance:mix_up")
IMBALANCE.register("cutmix", "lesiontk.train.imbalance:cut_mix")


def choose_imbalance(text: str) -> Imbalance:
    """Return the choice of ``name`` or ``name:strength``. Raises `UsageError` for others."""
    name, colon, strength = text.partition(":")
    make = IMBALANCE.get(name)
    if not colon:
        return make()
    parameters = list(inspect.signature(make).parameters)
    if not parameters:
        raise UsageError(f"imbalance choice {name!r} takes no strength; received {text!r}.")
    try:
        return make(float(strength))
    except ValueError as error:
        raise UsageError(
            f"imbalance choice {text!r}: {error}; expected a number, "
            f"{name}:{parameters[0].upper()}."
        ) from error


def draw_weights(choices: Iterable[Imbalance], counts: Counts) -> ClassWeights | None:
    """Return the sampling weight of each class [C], or None for a plain shuffle."""
    factors = [choice.draw_weight(counts) for choice in choices if choice.draw_weight]
    return np.prod(factors, axis=0) if factors else None


def weigh_and_shift(
    choices: Iterable[Imbalance], counts: Counts
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return each class's loss weight and the value added to its logit in training, [C]."""
    choices = list(choices)
    factors = [choice.loss_weight(counts) for choice in choices if choice.loss_weight]
    drawn = draw_weights(choices, counts)
    shares = counts * (1.0 if drawn is None else drawn)
    shifts = [choice.logit_shift(shares / shares.sum()) for choice in choices if choice.logit_shift]
    return (
        np.prod([np.ones(len(counts)), *factors], axis=0).astype(np.float32),
        np.sum([np.zeros(len(counts)), *shifts], axis=0).astype(np.float32),
    )


def make_loss(choices: Iterable[Imbalance], counts: Counts) -> Callable[[Any, Any], Any]:
    """Return a loss of targets (shares of the classes, [N, C]) and logits [N, C]: one value an
    image, [N]."""
    tf = import_tensorflow()
    choices = list(choices)
    focuses = [choice.focus for choice in choices if choice.focus]
    softenings = [choice.soften for choice in choices if choice.soften]
    weights, shift = weigh_and_shift(choices, counts)

    def loss(targets: Any, logits: Any) -> Any:
        targets = tf.cast(targets, tf.float32)
        softened = targets
        for soften in softenings:
            softened = soften(softened)
        shifted = logits + tf.constant(shift)
        value = tf.nn.softmax_cross_entropy_with_logits(softened, shifted)
        for focus in focuses:
            value = value * focus(tf.reduce_sum(targets * tf.nn.softmax(shifted), axis=1))
        return value * tf.linalg.matvec(targets, tf.constant(weights))

    return loss
