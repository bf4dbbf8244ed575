"""Grad-CAM on a Keras model: choice of the layer, its features and their gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lesiontk.errors import UsageError
from lesiontk.explain.grad_cam import compute_heatmaps
from lesiontk.system.frameworks import import_keras, import_tensorflow

BATCH = 8
LOGITS = "logits"
LAST_CALL = -1
"""The index of a layer's node in the model; a nested model's layers have earlier nodes."""


class GradCAM:
    """Heatmaps of a model from `build_model`, by the feature map of `layer`, of size `grid`."""

    def __init__(self, model: Any) -> None:
        found = find_spatial_layer(model)
        features = found.get_output_at(LAST_CALL)
        self.layer: str = found.name
        self.grid: tuple[int, int] = tuple(features.shape[1:3])
        self._size = int(model.input_shape[1])
        outputs = [features, model.get_layer(LOGITS).output]
        self._parts = import_keras().Model(model.input, outputs)

    def explain(self, pixels: NDArray[np.uint8], classes: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return float32 [N, S, S] in 0..1: the heatmap of each image for its given class.

        `pixels` is uint8 [N, S, S, 3] RGB, `classes` [N] are indices of logits.
        """
        chunks = [slice(start, start + BATCH) for start in range(0, len(pixels), BATCH)]
        maps = [
            compute_heatmaps(*self._differentiate(pixels[chunk], classes[chunk]), self._size)
            for chunk in chunks
        ]
        return np.concatenate([np.zeros((0, self._size, self._size), np.float32), *maps])

    def _differentiate(
        self, pixels: NDArray[np.uint8], classes: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the layer's features and the gradients of the classes' logits, both [N, h, w, K].

        It uses the logit, not the probability: softmax would mix in evidence against other classes,
        and its gradient vanishes where the network is confident.
        """
        tf = import_tensorflow()
        images = tf.cast(pixels, tf.float32)
        with tf.GradientTape() as tape:
            tape.watch(images)  # otherwise nothing is recorded if all weights are frozen
            features, logits = self._parts(images, training=False)
            scores = tf.gather(logits, classes, axis=1, batch_dims=1)
        gradients = tape.gradient(scores, features)
        return (  # mixed precision computes both in bfloat16
            np.asarray(tf.cast(features, tf.float32)),
            np.asarray(tf.cast(gradients, tf.float32)),
        )


def find_spatial_layer(model: Any) -> Any:
    """Return the last layer with a spatial feature map through which all paths lead.

    That is the layer before global pooling, or an earlier one if that has a single cell. Pooling
    layers are skipped, as in the paper, which uses the last convolution of VGG-16; so are maps
    without learned features and single branches. Raises `UsageError` with the model's name if there
    is none.
    """
    layers = import_keras().layers
    pooling = (layers.MaxPooling2D, layers.AveragePooling2D)
    order = {layer.name: number for number, layer in enumerate(model.layers)}
    first_learned = min((order[layer.name] for layer in model.layers if layer.weights), default=0)
    earliest = len(order)  # the earliest input of the layers passed so far
    for layer in reversed(model.layers[first_learned:]):
        output, source = layer.get_output_at(LAST_CALL), layer.get_input_at(LAST_CALL)
        shape = output.shape
        if (
            earliest >= order[layer.name]
            and len(shape) == 4
            and shape[1] * shape[2] > 1
            and not isinstance(layer, pooling)
        ):
            return layer
        for tensor in source if isinstance(source, list) else [source]:
            earliest = min(earliest, order[tensor._keras_history.layer.name])
    raise UsageError(
        f"{model.name} has no layer with a map of learned features on the path to its output, "
        "so heatmaps are impossible; --set explain.images=0 disables them."
    )
