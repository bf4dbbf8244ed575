"""A model whose important channels are known."""

from __future__ import annotations

from typing import Any

import numpy as np

from lesiontk.system.frameworks import import_keras


def build_model() -> Any:
    """Convolution, normalization, ReLU; the logits read channel 0 alone."""
    keras = import_keras()
    layers = keras.layers
    keras.utils.set_random_seed(1)
    image = keras.Input((8, 8, 3), name="image")
    x = layers.Rescaling(1 / 255)(image)
    x = layers.Conv2D(4, 3, use_bias=False, name="conv")(x)
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.ReLU(name="relu")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    logits = layers.Dense(2, name="logits")(x)
    model = keras.Model(image, layers.Softmax(name="probabilities")(logits))
    weights = np.zeros((4, 2), np.float32)
    weights[0] = 5, -5
    model.get_layer("logits").set_weights([weights, np.zeros(2, np.float32)])
    gamma = np.array([0.5, 3, 2, 1], np.float32)
    model.get_layer("norm").set_weights([gamma, np.ones(4), np.zeros(4), np.ones(4)])
    return model
