"""ResNet152V2 (He et al., arXiv:1603.05027), as in ``tf_keras.applications``."""

from __future__ import annotations

from typing import Any

from lesiontk.models.architecture import Architecture, Normalization, load_keras_weights
from lesiontk.system.frameworks import import_keras


def resnet152v2_body(x: Any) -> Any:
    """Return the feature maps of Keras' layers for the normalized image."""
    keras = import_keras()
    return keras.applications.ResNet152V2(include_top=False, weights=None, input_tensor=x).output


def load_resnet152v2(model: Any, weights: str) -> None:
    """Load Keras' ResNet152V2, which expects RGB in -1..1, the range of our normalization."""
    keras = import_keras()
    load_keras_weights(
        model,
        weights,
        keras.applications.ResNet152V2,
        "resnet152v2_weights_tf_dim_ordering_tf_kernels_notop.h5",
    )


def initialize_residuals_to_zero(model: Any) -> None:
    """Initialize each residual branch to zero, so that the network is shallow at first and trains.

    The four of the 50 blocks that change the number of channels are unchanged. After De &
    Smith, Batch Normalization Biases Residual Blocks Towards the Identity Function in Deep
    Networks, arXiv:2002.10444.
    """
    names = {layer.name for layer in model.layers}
    for layer in model.layers:
        block, found, _ = layer.name.rpartition("_3_conv")
        if found and f"{block}_0_conv" not in names:
            layer.set_weights([0 * values for values in layer.get_weights()])


RESNET152V2 = Architecture(
    name="resnet152v2",
    min_image_size=32,
    normalization=Normalization(1 / 127.5, (-1.0, -1.0, -1.0)),
    body=resnet152v2_body,
    load=load_resnet152v2,
    initialize=initialize_residuals_to_zero,
)
