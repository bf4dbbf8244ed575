"""Opening a user's Keras model: ``.keras`` of Keras 2 or 3, ``.h5``, SavedModel."""

from __future__ import annotations

import warnings
import zipfile
from pathlib import Path
from textwrap import shorten
from typing import Any

from lesiontk.errors import DataError
from lesiontk.frameworks import import_keras, import_tensorflow
from lesiontk.models.imported_config import (
    EXPECTED,
    ModelFile,
    check_layers,
    read_archive,
    read_hdf5,
)


def load_foreign_model(path: Path) -> Any:
    """Return the model in the Keras that wrote it: ``keras.Model`` or ``tf_keras.Model``.

    Code in the file (Lambda layers) is never run. Raises `DataError` for what is no Keras model, or
    holds layers that only the program that wrote it knows.
    """
    if not path.exists():
        raise DataError(f"{path} does not exist; {EXPECTED}.")
    if path.is_dir():
        return _load(import_keras(), _check_saved_model(path), path)
    if zipfile.is_zipfile(path):
        file = read_archive(path)
    elif path.suffix in (".h5", ".hdf5"):
        file = read_hdf5(path)
    else:
        raise DataError(f"{path.name} is no Keras model; {EXPECTED}.")
    check_layers(file, path)
    return _load(_keras_of(file), path, path)


def _load(keras: Any, source: Path, path: Path) -> Any:
    safely = keras.src.saving.serialization_lib.SafeModeScope
    try:
        with warnings.catch_warnings(), safely(True):  # in .h5 and SavedModel, too: no Lambda runs
            warnings.simplefilter("ignore")  # of training, which is not gone on with
            return keras.models.load_model(str(source), compile=False)
    except Exception as error:  # what it raises depends on what it does not know
        told = shorten(str(error), 300, placeholder=" …")  # it may hold the whole configuration
        raise DataError(f"{path.name} cannot be loaded: {told}") from error


def _keras_of(file: ModelFile) -> Any:
    """Return the Keras that wrote a file; the two read only their own."""
    if file.keras_version.startswith("2."):
        return import_keras()
    import_tensorflow()  # configured before Keras 3 imports it
    import keras

    return keras


def _check_saved_model(path: Path) -> Path:
    if not (path / "saved_model.pb").is_file():
        raise DataError(f"{path} holds no saved_model.pb; {EXPECTED}.")
    if not (path / "keras_metadata.pb").is_file():
        raise DataError(
            f"{path} is a SavedModel without Keras' layers (Model.export writes such, for serving "
            "alone): layer 'serving_default' is all it has; save the model as a .keras file."
        )
    return path
