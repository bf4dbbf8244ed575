"""A plugin of lesiontk as others write one: a new member of six families, in one file.

Nothing in lesiontk knows it. `register` is its entry point in the group ``lesiontk.plugins``.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from lesiontk.backends import BACKENDS
from lesiontk.backends.backend import (
    Backend,
    BackendInfo,
    ConversionRecord,
    Engine,
    EngineStructure,
    PrecisionInfo,
    QuantizationPlan,
)
from lesiontk.backends.keras.backend import KerasBackend, KerasEngine, load_model
from lesiontk.compress.model_history import derive_model
from lesiontk.data.images import open_images
from lesiontk.data.sources import SOURCES
from lesiontk.data.sources.source import Source, SourceInfo, SourceTable
from lesiontk.deploy import BUNDLE_TARGETS
from lesiontk.deploy.target import LITERT, BundleTarget, Contents, Runtime
from lesiontk.document import Record
from lesiontk.errors import DataError
from lesiontk.evaluate.metrics import FloatArray, WeightedScores
from lesiontk.files.hashing import hash_document
from lesiontk.models import ARCHITECTURES
from lesiontk.models.architecture import Architecture, Normalization
from lesiontk.recipe.metric import METRICS, Metric
from lesiontk.records import MODEL_FILE, Artefact, EngineSpec, ImageRecord, ModelFacts, ModelStep
from lesiontk.stage import Context, StageConfig, StageOutput
from lesiontk.stages.model_artefact import write_untrained
from lesiontk.system.frameworks import import_keras
from lesiontk.technique import TECHNIQUES, Technique, TechniqueInfo

MARK = b"BOXED\n"


class RoundKernelsConfig(StageConfig):
    """How coarse the weights become."""

    bits: int = Field(6, ge=2, le=16, description="of a weight, on a grid for each kernel")


@dataclass(frozen=True, slots=True)
class Rounding(Record):
    """The bits of a weight."""

    bits: int


class RoundKernels(Technique):
    """Rounds every kernel to a grid of its own, without training."""

    info: ClassVar[TechniqueInfo] = TechniqueInfo(
        name="round_kernels",
        version=1,
        accepts={"model": "model", "images": "images"},
        config=RoundKernelsConfig,
        tools=("tensorflow", "tf_keras", "numpy"),
        leaves=frozenset({"a grid"}),
        why_last="the weights lie on a grid, which any training would leave",
        help="Round the weights of MODEL to a grid of each kernel.",
        options={"bits": "Bits of a weight; default 6."},
    )

    def run(
        self, parents: Mapping[str, Artefact], config: RoundKernelsConfig, context: Context
    ) -> StageOutput:
        model = load_model(parents["model"].file(MODEL_FILE))
        for layer in model.layers:
            layer.set_weights([round_to_grid(w, config.bits) for w in layer.get_weights()])
        return write_untrained(
            model,
            open_images(parents["images"]),
            parents["images"],
            context,
            derive_model(
                parents["model"].read_facts(ModelFacts), self.info.name, Rounding(config.bits)
            ),
        )

    def describe(self, step: ModelStep) -> str:
        return f"weights on a grid of {step.read_change(Rounding).bits} bits"


def round_to_grid(weights: NDArray[np.float32], bits: int) -> NDArray[np.float32]:
    """Return the nearest of 2**bits - 1 even steps, symmetric about zero."""
    step = float(np.abs(weights).max()) / (2 ** (bits - 1) - 1)
    return np.round(weights / step).astype(np.float32) * np.float32(step) if step else weights


class BoxedBackend(Backend):
    """A trained model behind a mark of its own."""

    info: ClassVar[BackendInfo] = BackendInfo(
        name="boxed",
        precisions={"float32": PrecisionInfo(derived_from="model")},
        suffix=".boxed",
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
        (out / "engine.boxed").write_bytes(MARK + source.read_bytes())
        return ConversionRecord("engine.boxed")

    def read_spec(self, path: Path) -> EngineSpec:
        with Unboxed(path) as model:
            return replace(KerasBackend().read_spec(model), backend="boxed")

    def add_record(self, content: bytes, text: str) -> bytes:
        return MARK + KerasBackend().add_record(content.removeprefix(MARK), text)

    def split_record(self, content: bytes) -> tuple[bytes, str | None]:
        if not content.startswith(MARK):
            raise DataError("it has no mark of a boxed engine.")
        inner, text = KerasBackend().split_record(content.removeprefix(MARK))
        return MARK + inner, text

    def open(self, path: Path, *, threads: int = 1) -> Engine:
        with Unboxed(path) as model:
            engine = KerasEngine(model)
        engine.spec = replace(engine.spec, backend="boxed")
        return engine

    def inspect(self, path: Path) -> EngineStructure:
        with Unboxed(path) as model:
            return KerasBackend().inspect(model)


class Unboxed(tempfile.TemporaryDirectory[str]):
    """The Keras model in a boxed file, under the same name, while the block lasts."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def __enter__(self) -> Path:  # type: ignore[override]
        content = self._path.read_bytes()
        if not content.startswith(MARK):
            raise DataError(f"{self._path.name} is no boxed engine; convert the model again.")
        model = Path(self.name) / self._path.name
        model.write_bytes(content.removeprefix(MARK))
        return model


def patches_body(x: Any) -> Any:
    """One convolution over the means of patches."""
    layers = import_keras().layers
    x = layers.AveragePooling2D(4, name="patches")(x)
    x = layers.Conv2D(24, 3, padding="same", name="conv")(x)
    return layers.ReLU(name="relu")(x)


PATCHES = Architecture(
    name="patches",
    min_image_size=32,
    normalization=Normalization(1 / 128, (-1.0, -1.0, -1.0)),
    body=patches_body,
)


def compute_g_mean(scores: WeightedScores) -> FloatArray:
    """Return the geometric mean of the recalls, NaN where a label has no images."""
    with np.errstate(divide="ignore", invalid="ignore"):
        recalls = scores.right / (scores.right + scores.missed)
        mean: FloatArray = np.exp(np.log(recalls).mean(axis=1))
    return mean


G_MEAN = Metric("g_mean", compute_g_mean, compared=True)


def find_images(folder: Path) -> list[str]:
    """Return the images below a folder, relative to it."""
    found = (p for p in folder.rglob("*") if p.suffix in (".jpg", ".png"))
    return sorted(str(p.relative_to(folder)) for p in found)


class JsonSource(Source):
    """A folder with ``labels.json``: file -> diagnosis and lesion."""

    info: ClassVar[SourceInfo] = SourceInfo(
        name="labels_json",
        description="Images with labels in JSON",
        layout="labels.json, which maps each image to its diagnosis and lesion",
    )

    def _detect(self, path: Path) -> bool:
        return (path / "labels.json").is_file()

    def _read(self, path: Path) -> SourceTable:
        if not self._detect(path):
            raise self._layout_error(path, "has no labels.json")
        labels = json.loads((path / "labels.json").read_text())
        records = tuple(
            ImageRecord(Path(name).stem, entry["diagnosis"], name, entry["lesion"])
            for name, entry in labels.items()
            if (path / name).is_file()
        )
        return SourceTable(
            records=records,
            missing=tuple(Path(name).stem for name in labels if not (path / name).is_file()),
            unlisted=len([p for p in find_images(path) if p not in labels]),
            licence="CC0",
            citation="not stated",
            lesion_ids_known=True,
            metadata_sha256=hash_document(labels),
        )


class Kiosk(BundleTarget):
    """A computer in a waiting room."""

    engines: ClassVar[tuple[str, ...]] = ("tflite:int8", "tflite:float32")

    def runtimes(self, spec: EngineSpec) -> tuple[Runtime, ...]:
        return (LITERT,)

    def add_files(self, folder: Path, engine: Path, spec: EngineSpec) -> Contents:
        return Contents("Put this folder on the kiosk and switch it on.")


def register() -> None:
    """Add all of them."""
    here = __name__
    TECHNIQUES.register("round_kernels", f"{here}:RoundKernels", "Round weights to a grid.")
    BACKENDS.register("boxed", f"{here}:BoxedBackend")
    ARCHITECTURES.register("patches", f"{here}:PATCHES")
    METRICS.register("g_mean", f"{here}:G_MEAN")
    SOURCES.register("labels_json", f"{here}:JsonSource")
    BUNDLE_TARGETS.register("kiosk", f"{here}:Kiosk")
