"""Opening a user's Keras model: ``.keras`` of Keras 2 or 3, ``.h5``, SavedModel."""

from __future__ import annotations

import json
import warnings
import zipfile
from pathlib import Path
from typing import Any

from lesiontk.errors import DataError
from lesiontk.frameworks import import_keras, import_tensorflow

EXPECTED = "expected a .keras or .h5 file, or a folder with a SavedModel"


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
        return _load(_keras_of_archive(path), path, path)
    if path.suffix in (".h5", ".hdf5"):
        return _load(import_keras(), path, path)
    raise DataError(f"{path.name} is no Keras model; {EXPECTED}.")


def _load(keras: Any, source: Path, path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of training, which is not gone on with
            return keras.models.load_model(str(source), compile=False)
    except Exception as error:  # what it raises depends on the layer that it does not know
        raise DataError(f"{path.name} cannot be loaded: {str(error).strip()}") from error


def _keras_of_archive(path: Path) -> Any:
    """Return the Keras that wrote a ``.keras`` file; the two read only their own."""
    try:
        with zipfile.ZipFile(path) as archive:
            version = str(json.loads(archive.read("metadata.json"))["keras_version"])
    except (KeyError, ValueError, zipfile.BadZipFile) as error:
        raise DataError(
            f"{path.name} is a zip file without Keras' metadata; {EXPECTED}."
        ) from error
    if version.startswith("2."):
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
