"""Losses between the pooled features of a student and of its teacher: registered, weighted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lesiontk.errors import UsageError
from lesiontk.registry import Registry
from lesiontk.system.frameworks import import_keras, import_tensorflow

PROJECTION: Final = "feature_projection"
"""The layer from the student's features to the width of the teacher's: trained, never saved."""


@dataclass(frozen=True, slots=True)
class FeatureLoss:
    """A comparison of features; `compare` maps the student's [N, P] and the teacher's [N, D], in
    TensorFlow, to one value for each image, [N].

    With `projected` the student's features pass through a learned linear layer first: P = D.
    """

    compare: Callable[[Any, Any], Any]
    projected: bool = False


def compare_by_angle(student: Any, teacher: Any) -> Any:
    """Return 1 - cos(student, teacher), [N], in 0..2.

    Regression of a teacher's features through a learned layer (FitNets, Romero et al.,
    arXiv:1412.6550, section 2.2) with the cosine distance, which does not depend on their scale.
    """
    cosines = _normalize(student) * _normalize(teacher)
    return 1 - import_tensorflow().reduce_sum(cosines, axis=1)


def compare_by_similarity(student: Any, teacher: Any) -> Any:
    """Return the squared distance between the rows of both Gram matrices of a batch, [N], in 0..4.

    Row n of the matrix F F^T has the similarities of image n to all images of the batch, and is
    divided by its L2 norm: the mean over the batch is N times the similarity-preserving loss of
    Tung & Mori (arXiv:1907.09682, equations 2 to 4), independent of N and of both widths.
    """
    tf = import_tensorflow()
    grams = [
        _normalize(tf.matmul(features, features, transpose_b=True))
        for features in (student, teacher)
    ]
    return tf.reduce_sum((grams[0] - grams[1]) ** 2, axis=1)


def _normalize(rows: Any) -> Any:
    return import_tensorflow().math.l2_normalize(rows, axis=1)


FEATURE: Final = FeatureLoss(compare_by_angle, projected=True)
RELATIONAL: Final = FeatureLoss(compare_by_similarity)

FEATURE_LOSSES: Registry[FeatureLoss] = Registry("feature loss")
FEATURE_LOSSES.register(
    "feature",
    "lesiontk.train.feature_losses:FEATURE",
    "Cosine distance to the teacher's pooled features, through a linear layer that is trained and "
    "dropped (FitNets, arXiv:1412.6550).",
)
FEATURE_LOSSES.register(
    "relational",
    "lesiontk.train.feature_losses:RELATIONAL",
    "Distance between the similarities of a batch's images to each other, for features of any "
    "width (similarity-preserving distillation, arXiv:1907.09682).",
)


def read_weights(texts: Iterable[str]) -> dict[str, float]:
    """Return the weight of each loss written ``name`` (weight 1) or ``name:weight``.

    Raises `UsageError` for an unknown name, a name given twice, or a weight that is not above 0.
    """
    weights: dict[str, float] = {}
    for text in texts:
        name, colon, number = text.partition(":")
        FEATURE_LOSSES.get(name)
        try:
            weight = float(number) if colon else 1.0
        except ValueError:
            weight = 0.0
        if not 0 < weight < float("inf"):
            raise UsageError(
                f"feature loss {text!r}: expected a weight above 0, such as {name}:0.5."
            )
        if name in weights:
            raise UsageError(f"feature loss {name!r} is given twice; expected one weight.")
        weights[name] = weight
    return weights


@dataclass(frozen=True, slots=True)
class TeacherFeatures:
    """A teacher's pooled features of `width` D, and the weight of each loss by its name.

    `values` [N, D] are those of the plain images; None if the teacher gives them with its soft
    targets of each augmented image.
    """

    width: int
    weights: Mapping[str, float]
    values: NDArray[np.float32] | None = None

    @property
    def _losses(self) -> list[tuple[FeatureLoss, float]]:
        return [(FEATURE_LOSSES.get(name), weight) for name, weight in self.weights.items()]

    @property
    def projected(self) -> bool:
        """Whether a loss needs the student's features in the teacher's width."""
        return any(loss.projected for loss, _ in self._losses)

    def extend_output(self, model: Any) -> Any:
        """Return the tensor that a student is trained on: float32 [N, C + P], or
        [N, C + P + D] with the projection: its logits, its features, and these projected."""
        layers = import_keras().layers
        features = pool_features(model)
        parts = [model.get_layer("logits").output, features]
        if self.projected:
            project = layers.Dense(self.width, use_bias=False, dtype="float32", name=PROJECTION)
            parts.append(project(features))
        return layers.Concatenate(dtype="float32", name="logits_and_features")(parts)

    def measure(self, outputs: Any, targets: Any) -> Any:
        """Return the weighted sum of the losses, [N]; `outputs` [N, P] or [N, P + D] is what
        follows the logits, `targets` [N, D] the teacher's features."""
        tf = import_tensorflow()
        own = outputs[:, : -self.width] if self.projected else outputs
        return tf.add_n(
            [
                weight * loss.compare(outputs[:, -self.width :] if loss.projected else own, targets)
                for loss, weight in self._losses
            ]
        )


def pool_features(model: Any) -> Any:
    """Return the tensor [N, P] that the layer ``logits`` of a model reads, before dropout."""
    tensor = model.get_layer("logits").input
    while isinstance(tensor.node.layer, import_keras().layers.Dropout):
        tensor = tensor.node.layer.input
    return tensor
