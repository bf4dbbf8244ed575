"""ResNet152V2 (He et al., arXiv:1603.05027), as in ``tf_keras.applications``."""

from __future__ import annotations

from typing import Any

from lesiontk.frameworks import import_keras
from lesiontk.models.architecture import Architecture, Normalisation, load_keras_weights


def resnet152v2_body(x: Any) -> Any:
    """Keras' own layers, called on the normalised image."""
    keras = import_keras()
    return keras.applications.ResNet152V2(include_top=False, weights=None, input_tensor=x).output


def load_resnet152v2(model: Any, weights: str) -> None:
    """Load Keras' ResNet152V2, which expects RGB in -1..1 as our normalisation gives."""
    keras = import_keras()
    load_keras_weights(
        model,
        weights,
        keras.applications.ResNet152V2,
        "resnet152v2_weights_tf_dim_ordering_tf_kernels_notop.h5",
    )


RESNET152V2 = Architecture(
    name="resnet152v2",
    min_image_size=32,
    normalisation=Normalisation(1 / 127.5, (-1.0, -1.0, -1.0)),
    body=resnet152v2_body,
    load=load_resnet152v2,
)
