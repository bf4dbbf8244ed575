"""What a user's Keras file says of its layers, read and judged before Keras makes any of them."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py

from lesiontk.errors import DataError
from lesiontk.models.imported_layers import ForeignLayer, check_layer

MODELS = ("Functional", "Sequential", "Model")
EXPECTED = "expected a .keras or .h5 file, or a folder with a SavedModel"


@dataclass(frozen=True, slots=True)
class ModelFile:
    """The version of Keras that wrote a file, and the model's configuration."""

    keras_version: str
    config: Mapping[str, Any]


def read_archive(path: Path) -> ModelFile:
    """Return what a ``.keras`` file says; `DataError` for another zip file."""
    try:
        with zipfile.ZipFile(path) as archive:
            version = str(json.loads(archive.read("metadata.json"))["keras_version"])
            return ModelFile(version, json.loads(archive.read("config.json")))
    except (KeyError, ValueError, zipfile.BadZipFile) as error:
        raise DataError(
            f"{path.name} is a zip file without Keras' metadata; {EXPECTED}."
        ) from error


def read_hdf5(path: Path) -> ModelFile:
    """Return what an ``.h5`` file says; `DataError` for one without a model, of weights say."""
    try:
        with h5py.File(path) as file:
            config = json.loads(file.attrs["model_config"])
            version = file.attrs.get("keras_version", "2.")
    except (OSError, KeyError, ValueError) as error:
        raise DataError(
            f"{path.name} holds no Keras model (weights alone are none); {EXPECTED}."
        ) from error
    return ModelFile(version.decode() if isinstance(version, bytes) else str(version), config)


def check_layers(file: ModelFile, path: Path) -> None:
    """Raise `DataError` with the name of the first layer that cannot be imported."""
    try:
        model = _describe(file.config)
        entries = list(_list_layers(file.config)) if model.kind in MODELS else []
        layers = [(_describe(entry), _is_foreign(entry)) for entry in entries]
    except (AttributeError, KeyError, TypeError) as error:
        raise DataError(
            f"{path.name} describes its layers in no way that is known; {EXPECTED}."
        ) from error
    if model.kind not in MODELS:
        raise refuse_model(model.kind, model.name or path.stem)
    for layer, foreign in layers:
        if foreign:
            raise layer.refuse("its class is of the program that wrote it; expected Keras' layers")
        check_layer(layer)


def refuse_model(kind: str, name: str) -> DataError:
    """Return the error for a model that is code, not a graph of layers."""
    return DataError(
        f"model {name!r} ({kind}) is no functional model: what its code does cannot be read from "
        "the file; expected a functional or sequential one."
    )


def _list_layers(config: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the layers of a model and of the models in it, inputs aside."""
    for entry in config["config"]["layers"]:
        if entry["class_name"] in MODELS:
            yield from _list_layers(entry)
        elif entry["class_name"] != "InputLayer":
            yield entry


def _is_foreign(entry: Mapping[str, Any]) -> bool:
    """Whether a class is not Keras' own, though its name may be; ``.h5`` does not tell."""
    return "module" in entry and str(entry["module"]).split(".")[0] not in ("keras", "tf_keras")


def _describe(entry: Mapping[str, Any]) -> ForeignLayer:
    config = entry["config"]
    name = entry.get("name") or config.get("name", "")
    return ForeignLayer(str(entry["class_name"]), str(name), config, ())
