"""Soft targets of a teacher, and the distillation loss of a student."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lesiontk.data.batches import Teach
from lesiontk.system.frameworks import import_tensorflow
from lesiontk.train.feature_losses import TeacherFeatures


@dataclass(frozen=True, slots=True)
class SoftTargets:
    """A teacher's probabilities for the images, float32 [N, C], softened by `temperature`.

    The student's loss is
    ``(1 - weight) * hard + weight * T**2 * CE(soft_targets, softmax(logits / T))``
    (Hinton et al., arXiv:1503.02531, section 2). The soft targets are class-weighted as in the hard
    loss, because for memorized images a teacher only repeats the label, which does not help rare
    classes. Where the hard loss shifts logits, half of the shift applies to teacher and student and
    half becomes weights: the full shift would leave the softened target of a rare class almost
    only common classes.

    With `teach` the soft targets are the teacher's for each augmented image (Beyer et al.,
    arXiv:2106.05237, "consistent teaching"), instead of `probabilities`.

    With `features` their losses are added, with neither class weights nor shift: they compare the
    student with its teacher, whatever the label.
    """

    probabilities: NDArray[np.float32]
    temperature: float
    weight: float
    teach: Teach | None = None
    features: TeacherFeatures | None = None

    def make_loss(
        self,
        hard: Callable[[Any, Any], Any],
        class_weights: NDArray[np.float32],
        shift: NDArray[np.float32],
    ) -> Callable[[Any, Any], Any]:
        """Return a loss of targets [N, 2C] (truth, then soft targets) and logits [N, C].

        With `features` the targets end with the teacher's, [N, 2C + D], and instead of logits it
        takes `TeacherFeatures.extend_output`. `class_weights` and `shift` [C] are those of
        `lesiontk.train.imbalance.weigh_and_shift`.
        """
        tf = import_tensorflow()
        half = shift / 2
        weights = weigh_soft_targets(class_weights, shift)
        classes, features = len(class_weights), self.features

        def loss(targets: Any, outputs: Any) -> Any:
            targets, logits = tf.cast(targets, tf.float32), outputs[:, :classes]
            # A teacher of augmented images returns targets of unknown static width.
            labels = tf.ensure_shape(targets[:, :classes], [None, classes])
            soft = targets[:, classes : 2 * classes]
            shifted = soft * tf.exp(tf.constant(half))
            shifted /= tf.reduce_sum(shifted, axis=-1, keepdims=True)
            teacher_targets = tf.nn.softmax_cross_entropy_with_logits(
                shifted, logits / self.temperature + tf.constant(half)
            )
            teacher_targets *= self.temperature**2 * tf.linalg.matvec(labels, tf.constant(weights))
            value = (1 - self.weight) * hard(labels, logits) + self.weight * teacher_targets
            if features is None:
                return value
            return value + features.measure(outputs[:, classes:], targets[:, 2 * classes :])

        return loss


def weigh_soft_targets(
    class_weights: NDArray[np.float32], shift: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return the weight of the soft targets of each class, [C]: half of the shift becomes it."""
    half = shift / 2
    balance = np.exp(-half) / (np.exp(half).sum() / np.exp(shift).sum())
    return np.asarray(class_weights * balance, np.float32)


def soften(probabilities: NDArray[np.float32], temperature: float) -> NDArray[np.float32]:
    """Return the probabilities [N, C] of the same softmax at another temperature."""
    powers = np.power(np.maximum(probabilities, 1e-7), 1 / temperature)
    return np.asarray(powers / powers.sum(axis=1, keepdims=True), np.float32)
