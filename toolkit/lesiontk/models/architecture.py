"""The interface of an architecture, and the input and head that all of them share."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lesiontk.errors import DataError, MissingRequirementError, UsageError
from lesiontk.system.frameworks import import_keras


@dataclass(frozen=True, slots=True)
class Normalization:
    """Maps pixel values 0..255 (RGB) to ``pixel * scale + offset``, one offset per channel."""

    scale: float
    offset: tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Architecture:
    """A network's name, requirements and the two functions that build it.

    `body` maps a normalized image tensor [N, S, S, 3] to feature maps [N, h, w, F] or features
    [N, F]. `load` fills a built model from ``imagenet`` or a file; it is None where the network has
    no published weights. `wanted_file` describes the file to provide where ``imagenet`` cannot be
    downloaded; otherwise it is empty. `start` adjusts random weights before training.
    """

    name: str
    min_image_size: int
    normalization: Normalization
    body: Callable[[Any], Any]
    load: Callable[[Any, str], None] | None = None
    wanted_file: str = ""
    start: Callable[[Any], None] | None = None

    def check_weights(self, weights: str) -> None:
        """Raise `UsageError`, `DataError` or `MissingRequirementError` for unusable weights."""
        if weights == "none":
            return
        if self.load is None:
            raise UsageError(
                f"model.weights is {weights!r}, but {self.name} is trained from random weights; "
                "use 'none'."
            )
        if weights == "imagenet" and self.wanted_file:
            raise MissingRequirementError(
                f"model.weights is 'imagenet', but {self.name} has no download for Keras; "
                f"expected {self.wanted_file} (--weights FILE), or 'none'."
            )
        if weights != "imagenet" and not Path(weights).is_file():
            raise DataError(
                f"weights file {weights} does not exist; expected 'none', 'imagenet' or a path."
            )


def build_model(
    architecture: Architecture,
    *,
    image_size: int | None,
    classes: int,
    weights: str = "none",
    dropout: float = 0.0,
) -> Any:
    """Return a ``tf_keras.Model`` from pixels to probabilities.

    Input: float32 [N, S, S, 3], RGB, 0..255, of any size for None; normalization is the first
    layer. Output: float32 [N, C], softmax. The layer before it is called ``logits`` and has no
    activation.
    """
    keras = import_keras()
    image = keras.Input((image_size, image_size, 3), name="image")
    normalization = architecture.normalization
    x = keras.layers.Rescaling(
        normalization.scale, list(normalization.offset), name="normalisation"
    )(image)
    x = architecture.body(x)
    if len(x.shape) == 4:
        x = keras.layers.GlobalAveragePooling2D(name="pooling")(x)
    if dropout:
        x = keras.layers.Dropout(dropout, name="dropout")(x)
    logits = keras.layers.Dense(classes, name="logits", dtype="float32")(x)
    probabilities = keras.layers.Softmax(name="probabilities", dtype="float32")(logits)
    model = keras.Model(image, probabilities, name=architecture.name)
    if weights != "none":
        architecture.check_weights(weights)
        assert architecture.load is not None  # check_weights has raised
        architecture.load(model, weights)
    return model


def load_keras_weights(
    model: Any, weights: str, application: Callable[..., Any], file_hint: str
) -> Any:
    """Copy the weights of a ``tf_keras.applications`` network into the layers of the same name.

    Returns the source network. Raises `MissingRequirementError` if ``imagenet`` cannot be fetched
    and `DataError` if the file does not match.
    """
    try:
        with contextlib.redirect_stdout(sys.stderr):  # Keras prints its download's progress
            source = application(include_top=False, weights=weights, input_shape=(224, 224, 3))
    except Exception as error:
        if weights == "imagenet":
            raise MissingRequirementError(
                f"the ImageNet weights of {model.name} could not be downloaded ({error}); fetch "
                f"{file_hint} elsewhere and give its path as model.weights."
            ) from error
        raise DataError(
            f"{weights} does not contain the weights of {model.name}: {error}"
        ) from error
    ours = {layer.name: layer for layer in model.layers}
    for layer in source.layers:
        if layer.weights:
            ours[layer.name].set_weights(layer.get_weights())
    return source
