"""The only loader of model files: ``.keras`` of Keras 2 or 3, HDF5, SavedModel.

A file's description is read with bounds and reduced to `allow_list` (`imported_config`); the model
is built from that copy and gets the file's weights. Nothing else in the file is used: no graph of a
SavedModel, no optimizer, no loss. No other module may load a model file.
"""

from __future__ import annotations

import errno
import tempfile
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from textwrap import shorten
from typing import Any

import h5py

from lesiontk.errors import DataError
from lesiontk.files.regular_file import check_regular, read_regular
from lesiontk.models import imported_config as configs
from lesiontk.models.imported_config import (
    EXPECTED,
    ModelFile,
    check_size,
    parse_description,
    permit_model,
)
from lesiontk.models.weights_file import (
    bytes_beside_arrays,
    count_elements,
    extract_member,
    read_member,
)
from lesiontk.system.frameworks import import_keras, import_tensorflow

STATES = 4096
"""Variables allowed beyond those in the file: states of random layers, which are not saved."""
MAX_OUTPUT = 2**28
"""Maximum number of values in one layer's output for one image."""


@dataclass(frozen=True, slots=True)
class _Opened:
    """A file's permitted description, its number of weights, and the path of the weights."""

    file: ModelFile
    elements: int
    weights: Path


def load_model_file(path: Path) -> Any:
    """Return the model in the Keras that wrote it, in float32: ``keras.Model`` or `tf_keras.Model`.

    The content determines the format, not the suffix. Raises `DataError` for a file that is not a
    Keras model, that names a layer, function or module that is not permitted, or is too large.
    """
    with _open(path) as opened:
        return _load(opened, path.name)


def load_foreign_model(path: Path) -> Any:
    """Return the model as `load_model_file`, also checked to be rebuildable in Keras 2."""
    with _open(path) as opened:
        configs.check_layers(opened.file)
        return _load(opened, path.name)


@contextmanager
def _open(path: Path) -> Iterator[_Opened]:
    if not path.exists():
        raise DataError(f"{path} does not exist; {EXPECTED}.")
    with tempfile.TemporaryDirectory() as folder:
        yield _find_reader(path)(path, Path(folder))


def _find_reader(path: Path) -> Callable[[Path, Path], _Opened]:
    if path.is_dir():
        return _open_saved_model
    check_regular(path, "model")
    if h5py.is_hdf5(path):
        return _open_hdf5
    if zipfile.is_zipfile(path):
        return _open_archive
    raise DataError(f"{path.name} is not a Keras model; {EXPECTED}.")


def _open_archive(path: Path, folder: Path) -> _Opened:
    with (
        _reading(path.name, "is a zip file without Keras' metadata"),
        zipfile.ZipFile(path) as archive,
    ):
        metadata = parse_description(read_member(archive, "metadata.json", 2**16), path.name)
        version = str(metadata["keras_version"])
        text = read_member(archive, "config.json", configs.MAX_BYTES)
    described = permit_model(parse_description(text, path.name), version, path.name, modules=True)
    with _reading(path.name, "contains no weights"), zipfile.ZipFile(path) as archive:
        weights = extract_member(archive, "model.weights.h5", folder / "model.weights.h5")
    return _Opened(described, _count(weights, path.name), weights)


@contextmanager
def _reading(name: str, problem: str) -> Iterator[None]:
    """Convert the errors of a damaged file to a `DataError`."""
    try:
        yield
    except (KeyError, TypeError, ValueError, OSError, EOFError, RuntimeError, zlib.error,
            zipfile.BadZipFile) as error:  # fmt: skip
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise
        raise DataError(f"{name} {problem}; {EXPECTED}.") from error


def _open_hdf5(path: Path, folder: Path) -> _Opened:
    problem = "contains no Keras model (weights alone are not enough)"
    with _reading(path.name, problem), h5py.File(path) as file:
        text, version = _read_config(file, path.name), file.attrs.get("keras_version", "2.")
    version = version.decode() if isinstance(version, bytes) else str(version)
    described = permit_model(parse_description(text, path.name), version, path.name, modules=False)
    weights = folder / "model.h5"  # Keras chooses by the suffix
    weights.symlink_to(path.resolve())
    return _Opened(described, _count(path, path.name), weights)


def _read_config(file: h5py.File, name: str) -> bytes | str:
    """Return the text of a model's description, after a check of its length.

    It is uncompressed in the file: of a fixed length, or outside of the arrays.
    """
    other_bytes = bytes_beside_arrays(file, name)  # first, because it refuses unbounded texts
    attribute = file.attrs.get_id("model_config")
    fixed = attribute.dtype.kind == "S"
    check_size(prod(attribute.shape) * attribute.dtype.itemsize if fixed else other_bytes, name)
    text = file.attrs["model_config"]
    if not isinstance(text, bytes | str):
        raise TypeError("not text")
    return text


def _count(path: Path, name: str) -> int:
    with _reading(name, "contains weights that cannot be read"), h5py.File(path) as file:
        return count_elements(file, name)


def _open_saved_model(path: Path, _folder: Path) -> _Opened:
    """Return the description in ``keras_metadata.pb`` and the checkpoint, without its graph."""
    if not (path / "saved_model.pb").is_file():
        raise DataError(f"{path} contains no saved_model.pb; {EXPECTED}.")
    metadata = path / "keras_metadata.pb"
    if not metadata.is_file():
        raise DataError(
            f"{path} is a SavedModel without Keras' layers (as written by Model.export for "
            "serving): it has only the layer 'serving_default'; save the model as a .keras file."
        )
    tf = import_tensorflow()
    from tf_keras.protobuf.saved_metadata_pb2 import SavedMetadata

    content = read_regular(metadata, "SavedModel's file", limit=configs.MAX_BYTES)
    try:
        nodes = SavedMetadata.FromString(content).nodes
    except Exception as error:  # protobuf does not document its types
        raise DataError(f"{path.name}/keras_metadata.pb cannot be read; {EXPECTED}.") from error
    texts = [node.metadata for node in nodes if node.node_path == "root"]
    if len(texts) != 1:
        raise DataError(f"{path.name} describes {len(texts)} models; {EXPECTED}.")
    described = permit_model(parse_description(texts[0], path.name), "2.", path.name, modules=False)
    prefix = path / "variables" / "variables"
    check_regular(prefix.with_suffix(".index"), "SavedModel's file")
    stored = sum(
        check_regular(file, "SavedModel's file") for file in prefix.parent.glob("variables.data-*")
    )
    try:
        reader = tf.train.load_checkpoint(str(prefix))
        shapes, types = reader.get_variable_to_shape_map(), reader.get_variable_to_dtype_map()
    except (tf.errors.OpError, ValueError, RuntimeError) as error:
        raise DataError(f"{path.name} contains no readable variables.") from error
    other = {
        kind.name
        for key, kind in types.items()
        if key.startswith("layer") and kind.is_floating and kind != tf.float32
    }
    if other:
        raise DataError(
            f"{path.name} is a SavedModel with weights of {', '.join(sorted(other))}, which are "
            "not converted to float32; save the model as a .keras file."
        )
    elements = sum(prod(shape) for shape in shapes.values())
    if elements > stored:
        raise DataError(
            f"{path.name} declares {elements:,} weights in {stored:,} bytes; expected no more "
            "than it contains."
        )
    return _Opened(described, elements, prefix)


def _load(opened: _Opened, name: str) -> Any:
    make = _make_keras2 if opened.file.is_keras2 else _make_keras3
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about training, which is not resumed
            model = make(opened.file, opened.elements + STATES, name)
            _check_outputs(model, name)
            status = model.load_weights(str(opened.weights))
            if status is not None:  # the status of a checkpoint
                status.assert_existing_objects_matched()
    except DataError:
        raise
    except Exception as error:  # the type depends on the damage
        keras3_hdf5 = not (opened.file.is_keras2 or opened.file.modules)
        remedy = " Keras 3 cannot read every .h5 file that it writes: save the model as .keras."
        raise DataError(
            f"{name} cannot be loaded: "
            f"{_shorten(error).rstrip('.')}.{remedy if keras3_hdf5 else ''}"
        ) from error
    return model


def _shorten(error: Exception) -> str:
    return shorten(str(error), 300, placeholder=" …")  # it may contain the whole config


def _make_keras2(file: ModelFile, limit: int, name: str) -> Any:
    """Return the model without its weights; variables are checked before they are allocated."""
    keras, tf = import_keras(), import_tensorflow()
    made = 0

    def create(make: Callable[..., Any], **options: Any) -> Any:
        nonlocal made
        shape = options.get("shape")
        made += 1 if shape is None else int(prod(shape))
        _check_elements(made, limit, name)
        return make(**options)

    library = keras.src.saving.serialization_lib
    with (
        tf.variable_creator_scope(create),
        library.SafeModeScope(True),
        library.ObjectSharingScope(),
    ):
        if file.modules:
            return keras.saving.deserialize_keras_object(file.config)
        return keras.models.model_from_config(file.config)


def _make_keras3(file: ModelFile, limit: int, name: str) -> Any:
    """Return as `_make_keras2`: all variables are checked before the first is allocated."""
    import_tensorflow()  # configured before Keras 3 imports it
    import keras
    from keras.src.backend.common import global_state
    from keras.src.backend.common.variables import initialize_all_variables
    from keras.src.legacy.saving import saving_options, saving_utils

    library = keras.src.saving.serialization_lib
    try:
        with (
            keras.StatelessScope(initialize_variables=False),
            library.SafeModeScope(True),
            library.ObjectSharingScope(),
        ):
            if file.modules:
                model = keras.saving.deserialize_keras_object(file.config)
            else:
                with saving_options.keras_option_scope(use_legacy_config=True):
                    model = saving_utils.model_from_config(file.config)
        _check_elements(sum(prod(weight.shape) for weight in model.variables), limit, name)
        initialize_all_variables()
    finally:
        global_state.set_global_attribute("uninitialized_variables", [])
    return model


def _check_elements(made: int, limit: int, name: str) -> None:
    if made > limit:
        raise DataError(
            f"{name} describes layers with more weights than the {limit - STATES:,} that it "
            "contains."
        )


def _check_outputs(model: Any, name: str) -> None:
    """Raise `DataError` for a layer whose output for one image would take gigabytes."""
    for layer in model.layers:
        if hasattr(layer, "layers"):
            _check_outputs(layer, name)
            continue
        for node in layer._inbound_nodes:
            outputs = node.output_tensors if hasattr(node, "operation") else node.outputs
            for tensor in outputs if isinstance(outputs, list | tuple) else [outputs]:
                if prod(extent or 1 for extent in tensor.shape[1:]) > MAX_OUTPUT:
                    raise DataError(
                        f"{name}: layer {layer.name!r} returns {list(tensor.shape)} for one image; "
                        f"expected at most {MAX_OUTPUT:,} numbers."
                    )
