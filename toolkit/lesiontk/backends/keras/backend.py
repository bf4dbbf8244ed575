"""Back end ``keras``: the trained model itself, the full-precision parent of every engine."""

from __future__ import annotations

import json
import shutil
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from lesiontk.backends.backend import (
    SPEC_KEY,
    Backend,
    BackendInfo,
    ConversionRecord,
    Engine,
    EngineStructure,
    PrecisionInfo,
    QuantizationPlan,
    dump_spec,
    parse_spec,
)
from lesiontk.backends.execution import Execution
from lesiontk.backends.file_records import add_to_archive, split_archive
from lesiontk.errors import DataError
from lesiontk.models.imported_config import MAX_BYTES, parse_description
from lesiontk.models.imported_file import load_model_file
from lesiontk.models.weights_file import read_member
from lesiontk.records import EngineSpec
from lesiontk.system.frameworks import import_keras, import_tensorflow
from lesiontk.train.feature_losses import pool_features

FILE = "keras_float32.keras"
MEMBER = f"{SPEC_KEY}.json"
SPEC_BYTES = 2**20


class KerasEngine(Engine):
    """An engine that runs a ``.keras`` file of Keras 2."""

    batches = True

    def __init__(self, path: Path) -> None:
        super().__init__(read_spec(path))
        model = load_model(path)
        _check_shapes(model, self.spec, path.name)
        self._model, self._call = model, self._trace(model)

    def _trace(self, model: Any) -> Any:
        """Return a function of pixels, traced once for batches of any length."""
        tf = import_tensorflow()
        pixels = tf.TensorSpec((None, *self.spec.input_shape), tf.uint8)
        return tf.function(
            lambda images: model(tf.cast(images, tf.float32), training=False),
            input_signature=[pixels],
        )

    def _infer(self, images: NDArray[np.uint8]) -> NDArray[Any]:
        return np.concatenate(
            [np.asarray(self._call(images[i : i + 32])) for i in range(0, len(images), 32)]
        )

    def describe_execution(self) -> tuple[Execution, ...]:
        gpus = import_tensorflow().config.list_physical_devices("GPU")
        return (Execution("device", "GPU", "GPU", "by TensorFlow"),) if gpus else ()

    def expose_features(self) -> int:
        if "logits" not in (layer.name for layer in self._model.layers):
            return 0
        features = pool_features(self._model)
        if len(features.shape) != 2:
            return 0
        self._call_both = self._trace(
            import_keras().Model(self._model.input, [self._model.output, features])
        )
        return int(features.shape[1])

    def _infer_features(self, images: NDArray[np.uint8]) -> tuple[NDArray[Any], NDArray[Any]]:
        parts = [self._call_both(images[i : i + 32]) for i in range(0, len(images), 32)]
        probabilities, features = (np.concatenate(both) for both in zip(*parts, strict=True))
        return probabilities, features


def _check_shapes(model: Any, spec: EngineSpec, name: str) -> None:
    """Raise `DataError` unless a model's input matches its file's description."""
    expected = ((*spec.input_shape,), (len(spec.labels),))
    for what, tensors, shape in zip(("takes", "returns"), (model.inputs, model.outputs), expected,
                                    strict=True):  # fmt: skip
        received = [list(tensor.shape[1:]) for tensor in tensors]
        fits = (
            len(received) == 1
            and len(received[0]) == len(shape)
            and all(ours in (None, theirs) for ours, theirs in zip(received[0], shape, strict=True))
        )
        if not fits:
            raise DataError(
                f"{name} {what} {', '.join(map(str, received))} but its description has "
                f"{list(shape)}; expected the same: export the engine again."
            )


def read_spec(path: Path) -> EngineSpec:
    """Return the description in a ``.keras`` file. Raises `DataError` if damaged or missing."""
    try:
        with zipfile.ZipFile(path) as archive:
            found = MEMBER in archive.namelist()
            text = read_member(archive, MEMBER, SPEC_BYTES).decode() if found else None
    except (OSError, KeyError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path.name} is not an intact .keras file: {error}") from error
    return parse_spec(text, path)


def find_spec(path: Path) -> EngineSpec | None:
    """Return the description in a model's file; None if lesiontk did not write it."""
    if not zipfile.is_zipfile(path):
        return None
    with zipfile.ZipFile(path) as archive:
        described = MEMBER in archive.namelist()
    return read_spec(path) if described else None


def load_model(path: Path) -> Any:
    """Return the ``tf_keras.Model`` of a ``.keras`` file.

    Raises `DataError` if Keras 3 wrote it, and as `load_model_file`.
    """
    model = load_model_file(path)
    if not isinstance(model, import_keras().Model):
        raise DataError(
            f"{path.name} was written by Keras 3; expected a lesiontk model (Keras 2): "
            "`lesiontk import` converts it."
        )
    return model


def layer_values(
    path: Path, names: Sequence[str], image: NDArray[np.uint8]
) -> dict[str, NDArray[Any]]:
    """Return layer -> its output [1, ...] for one image, uint8 [1, S, S, 3]."""
    model = load_model(path)
    outputs = [model.get_layer(name).output for name in names]
    values = import_keras().Model(model.input, outputs)(image.astype(np.float32), training=False)
    return {name: np.asarray(value) for name, value in zip(names, values, strict=True)}


def save_model(model: Any, spec: EngineSpec, path: Path) -> None:
    """Write a model as ``.keras`` with its description in the file.

    Equal models give equal bytes: the file contains no times, and no trace of the process that
    saved it (size of the last batch, random generator).
    """
    saved = path.with_name(f".{path.stem}.tmp.keras")
    model.save(str(saved))
    with zipfile.ZipFile(saved) as read, zipfile.ZipFile(path, "w") as archive:
        for name in sorted(read.namelist()):
            with read.open(name) as member, archive.open(_member(name), "w") as out:
                if name.endswith(".json"):
                    out.write(json.dumps(_without_process(json.load(member))).encode())
                else:
                    shutil.copyfileobj(member, out)
        archive.writestr(_member(MEMBER), dump_spec(spec))
    saved.unlink()


def _member(name: str) -> zipfile.ZipInfo:
    """Return an archive entry with a fixed time, 1980-01-01, and fixed permissions."""
    member = zipfile.ZipInfo(name)
    member.create_system, member.external_attr = 3, 0o600 << 16  # Unix
    return member


def _without_process(document: Any) -> Any:
    if isinstance(document, list):
        return [_without_process(value) for value in document]
    if not isinstance(document, dict):
        return document
    kept = {key: _without_process(value) for key, value in document.items() if key != "rng_type"}
    if "date_saved" in kept:
        kept["date_saved"] = "1980-01-01@00:00:00"
    shape = (kept.get("build_config") or {}).get("input_shape")
    if isinstance(shape, list) and shape and isinstance(shape[0], int):
        kept["build_config"]["input_shape"] = [None, *shape[1:]]
    return kept


class KerasBackend(Backend):
    """A trained model with its description in the file."""

    info: ClassVar[BackendInfo] = BackendInfo(
        name="keras",
        title="Keras",
        precisions={"float32": PrecisionInfo(derived_from="model")},
        suffix=".keras",
        tools=("tensorflow", "tf_keras"),
    )

    def _convert(
        self,
        source: Path,
        precision: str,
        spec: EngineSpec,
        quantization: QuantizationPlan | None,
        out: Path,
    ) -> ConversionRecord:
        shutil.copyfile(source, out / FILE)  # a trained model is an engine already
        return ConversionRecord(FILE)

    def read_spec(self, path: Path) -> EngineSpec:
        return read_spec(path)

    def add_record(self, content: bytes, text: str) -> bytes:
        return add_to_archive(content, text)

    def split_record(self, content: bytes) -> tuple[bytes, str | None]:
        return split_archive(content)

    def open(self, path: Path, *, threads: int = 1) -> Engine:
        return KerasEngine(path)

    def inspect(self, path: Path) -> EngineStructure:
        with zipfile.ZipFile(path) as archive:
            text = read_member(archive, "config.json", MAX_BYTES)
            layers = parse_description(text, path.name)["config"]["layers"]
            size = archive.getinfo("model.weights.h5").file_size
        return EngineStructure({"float32": size}, {"float32": len(layers)})
