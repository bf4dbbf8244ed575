"""What to do about rare classes: registered choices that can be combined.

A choice may weigh the draw of training images, weigh their loss, or change the loss. All take
``counts``, the number of training images in each class, int [C].
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lesiontk.frameworks import import_tensorflow
from lesiontk.registry import Registry

Counts = NDArray[np.int64]
ClassWeights = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Imbalance:
    """One choice; the parts that it does not touch are None.

    `draw_weight` and `loss_weight` give one factor a class, [C]. `focus` multiplies the loss of an
    image by a function of the probability given to its true class. `logit_shift` maps each class's
    share of the drawn images to what is added to its logit while training, [C].
    """

    draw_weight: Callable[[Counts], ClassWeights] | None = None
    loss_weight: Callable[[Counts], ClassWeights] | None = None
    focus: Callable[[Any], Any] | None = None
    logit_shift: Callable[[ClassWeights], ClassWeights] | None = None


def weigh_inverse(counts: Counts) -> ClassWeights:
    """Every class counts the same: N / (C * n_c)."""
    return np.asarray(counts.sum() / (len(counts) * counts))


def weigh_inverse_root(counts: Counts) -> ClassWeights:
    """Half way, on a logarithmic scale, between the natural and the equal share."""
    return np.sqrt(weigh_inverse(counts))


def weigh_effective_number(counts: Counts, beta: float = 0.999) -> ClassWeights:
    """(1 - beta) / (1 - beta**n), mean 1 over the classes (Cui et al., arXiv:1901.05555, eq. 4)."""
    weights = (1 - beta) / (1 - beta ** counts.astype(np.float64))
    return np.asarray(weights / weights.mean())


def focus_on_hard(probability: Any, gamma: float = 2.0) -> Any:
    """(1 - p)**gamma (Lin et al., arXiv:1708.02002, eq. 4)."""
    return import_tensorflow().pow(1.0 - probability, gamma)


def shift_by_log_prior(shares: ClassWeights) -> ClassWeights:
    """The log of the share: the logits themselves then aim at balanced error (Menon et al.,
    arXiv:2007.07314, eq. 10, tau = 1)."""
    return np.log(shares)


NONE = Imbalance()
CLASS_WEIGHT = Imbalance(loss_weight=weigh_inverse)
SQRT_CLASS_WEIGHT = Imbalance(loss_weight=weigh_inverse_root)
EFFECTIVE_NUMBER = Imbalance(loss_weight=weigh_effective_number)
BALANCED_SAMPLING = Imbalance(draw_weight=weigh_inverse)
SQRT_SAMPLING = Imbalance(draw_weight=weigh_inverse_root)
FOCAL_LOSS = Imbalance(focus=focus_on_hard)
LOGIT_ADJUSTMENT = Imbalance(logit_shift=shift_by_log_prior)

IMBALANCE: Registry[Imbalance] = Registry("imbalance choice")
IMBALANCE.register("none", "lesiontk.train.imbalance:NONE")
IMBALANCE.register("class_weight", "lesiontk.train.imbalance:CLASS_WEIGHT")
IMBALANCE.register("sqrt_class_weight", "lesiontk.train.imbalance:SQRT_CLASS_WEIGHT")
IMBALANCE.register("effective_number", "lesiontk.train.imbalance:EFFECTIVE_NUMBER")
IMBALANCE.register("balanced_sampling", "lesiontk.train.imbalance:BALANCED_SAMPLING")
IMBALANCE.register("sqrt_sampling", "lesiontk.train.imbalance:SQRT_SAMPLING")
IMBALANCE.register("focal_loss", "lesiontk.train.imbalance:FOCAL_LOSS")
IMBALANCE.register("logit_adjustment", "lesiontk.train.imbalance:LOGIT_ADJUSTMENT")


def draw_weights(choices: Iterable[Imbalance], counts: Counts) -> ClassWeights | None:
    """Return the factor on each class's chance of being drawn [C], or None for a plain shuffle."""
    factors = [choice.draw_weight(counts) for choice in choices if choice.draw_weight]
    return np.prod(factors, axis=0) if factors else None


def make_loss(
    choices: Iterable[Imbalance], counts: Counts, label_smoothing: float
) -> Callable[[Any, Any], Any]:
    """Return a loss of integer targets [N] and logits [N, C]: one value an image, [N]."""
    tf = import_tensorflow()
    choices = list(choices)
    focuses = [choice.focus for choice in choices if choice.focus]
    factors = [choice.loss_weight(counts) for choice in choices if choice.loss_weight]
    weights = np.prod([np.ones(len(counts)), *factors], axis=0).astype(np.float32)
    drawn = draw_weights(choices, counts)
    shares = counts * (1.0 if drawn is None else drawn)
    shifts = [choice.logit_shift(shares / shares.sum()) for choice in choices if choice.logit_shift]
    shift = np.sum([np.zeros(len(counts)), *shifts], axis=0).astype(np.float32)

    def loss(targets: Any, logits: Any) -> Any:
        indices = tf.cast(tf.reshape(targets, [-1]), tf.int32)
        one_hot = tf.one_hot(indices, len(weights))
        smooth = one_hot * (1 - label_smoothing) + label_smoothing / len(weights)
        shifted = logits + tf.constant(shift)
        value = tf.nn.softmax_cross_entropy_with_logits(smooth, shifted)
        for focus in focuses:
            true = tf.reduce_sum(one_hot * tf.nn.softmax(shifted), axis=1)
            value = value * focus(true)
        return value * tf.gather(tf.constant(weights), indices)

    return loss
