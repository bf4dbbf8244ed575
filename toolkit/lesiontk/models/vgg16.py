"""VGG16 (Simonyan & Zisserman, arXiv:1409.1556) with a pooled head."""

from __future__ import annotations

from typing import Any

from lesiontk.models.architecture import Architecture, Normalization, load_keras_weights
from lesiontk.system.frameworks import import_keras

BLOCKS = ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))


def vgg16_body(x: Any) -> Any:
    """Return features of thirteen convolutions in five blocks, with Keras' layer names."""
    layers = import_keras().layers
    for block, (depth, width) in enumerate(BLOCKS, start=1):
        for number in range(1, depth + 1):
            name = f"block{block}_conv{number}"
            x = layers.Conv2D(width, 3, padding="same", activation="relu", name=name)(x)
        x = layers.MaxPooling2D(name=f"block{block}_pool")(x)
    return x


def load_vgg16(model: Any, weights: str) -> None:
    """Load Keras' VGG16; its first kernel expects BGR and is turned to RGB once, here."""
    keras = import_keras()
    load_keras_weights(
        model,
        weights,
        keras.applications.VGG16,
        "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5",
    )
    first = model.get_layer("block1_conv1")
    kernel, bias = first.get_weights()
    first.set_weights([kernel[:, :, ::-1, :], bias])


VGG16 = Architecture(
    name="vgg16",
    min_image_size=32,
    normalization=Normalization(1.0, (-123.68, -116.779, -103.939)),
    body=vgg16_body,
    load=load_vgg16,
)
