"""Models that tell made-up pictures apart, made in a second: random features, a fitted last layer.

A network fresh from its initializer answers every picture alike; then any damage would go unseen.
"""

from __future__ import annotations

import pickle
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lesiontk.backends import BACKENDS
from lesiontk.backends.backend import ConversionRecord, QuantizationPlan
from lesiontk.backends.keras.backend import save_model
from lesiontk.evaluate.verification import Verification, verify_outputs
from lesiontk.models.architecture import Architecture, build_model
from lesiontk.recipe import VerifyRule
from lesiontk.records import EngineSpec, Preprocessing
from lesiontk.system.frameworks import import_keras
from tests.one_at_a_time import one_at_a_time

# RGB; none is another with red and blue exchanged.
PALETTE = np.array(
    [
        (210, 90, 60),
        (70, 160, 220),
        (90, 200, 40),
        (230, 200, 150),
        (120, 40, 160),
        (30, 60, 90),
        (180, 190, 30),
    ]
)


def draw_pictures(
    count: int, size: int, classes: int, seed: int
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return uint8 [count, size, size, 3], discs on grounds, and int64 [count], their colours."""
    generator = np.random.default_rng(seed)
    targets = np.arange(count) % classes
    rows, columns = np.mgrid[:size, :size]
    pictures = np.empty((count, size, size, 3))
    for picture, target in zip(pictures, targets, strict=True):
        y, x = generator.uniform(0.4, 0.6, 2) * size
        inside = np.hypot(rows - y, columns - x) < generator.uniform(0.25, 0.45) * size
        ground = generator.uniform(100, 200)
        picture[:] = np.where(inside[..., np.newaxis], PALETTE[target], ground)
    pictures += generator.normal(0, 12, pictures.shape)
    return np.clip(pictures, 0, 255).astype(np.uint8), targets


def build_fitted_model(
    architecture: Architecture,
    *,
    image_size: int,
    classes: int,
    change: Callable[[Any], None] | None = None,
) -> Any:
    """Return a model that classifies `draw_pictures`; its body is random, then changed."""
    keras = import_keras()
    keras.utils.set_random_seed(3)
    model = build_model(architecture, image_size=image_size, classes=classes)
    pixels, targets = draw_pictures(20 * classes, image_size, classes, seed=99)
    pictures = pixels.astype(np.float32)
    _draw_scales(model)
    settle_statistics(model, pictures)
    if change is not None:
        change(model)
    logits = model.get_layer("logits")
    features = np.asarray(keras.Model(model.input, logits.input)(pictures, training=False))
    spread, middle = features.std(axis=0) + 1e-6, features.mean(axis=0)
    design = (features - middle) / spread
    wanted = 6.0 * (np.eye(classes)[targets] - 1 / classes)
    gram = design @ design.T  # ridge regression in its dual form: fewer pictures than features
    penalty = 0.1 * np.trace(gram) / len(gram) * np.eye(len(gram))
    kernel = design.T @ np.linalg.solve(gram + penalty, wanted) / spread[:, np.newaxis]
    logits.set_weights([kernel, -middle @ kernel])
    return model


def _list_normalizations(model: Any) -> list[Any]:
    kind = import_keras().layers.BatchNormalization
    return [layer for layer in model.layers if isinstance(layer, kind)]


def _draw_scales(model: Any) -> None:
    """Give every normalization layer scales and shifts like those of a trained one.

    The large offset keeps most units open: a deep random network that clips half of its units blows
    any small difference up until its answers say nothing, which no trained network does.
    """
    generator = np.random.default_rng(3)
    for layer in _list_normalizations(model):
        width = layer.gamma.shape[0]
        layer.gamma.assign(generator.uniform(0.8, 1.2, width))
        layer.beta.assign(generator.normal(1.5, 0.1, width))


def settle_statistics(model: Any, pictures: NDArray[np.float32]) -> None:
    """Give every normalization layer the statistics of these pictures, [N, S, S, 3]."""
    layers = _list_normalizations(model)
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.momentum = 0.0  # the statistics of this one batch
    model(pictures, training=True)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum


SPEC = EngineSpec(
    labels=("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc"),
    preprocessing=Preprocessing(32, "stretch"),
    task="seven_class",
    backend="keras",
    precision="float32",
    recipe="fitted",
    split_hash="5" * 64,
    licence="CC0",
)


class EngineChain(ABC):
    """A model on disk, and the engines made of it so far, by whichever worker has the folder."""

    def __init__(self, model: Any, spec: EngineSpec, folder: Path) -> None:
        """`model` is None where its file is in the folder already."""
        self.spec, self.folder = spec, folder
        self.files = {"model": folder / "model.keras"}
        self.records: dict[str, ConversionRecord] = {}
        if model is not None:
            save_model(model, spec, self.files["model"])

    @abstractmethod
    def plan_for(self, origin: str) -> QuantizationPlan:
        """Return how engines are quantized that are derived from `origin`."""

    def convert(self, target: str) -> Path:
        """Return the engine file of a target; what it is derived from is made before it."""
        if target not in self.files:
            self.records[target] = self._convert_once(target)
            self.files[target] = self.folder / self.records[target].file
        return self.files[target]

    def _convert_once(self, target: str) -> ConversionRecord:
        made = self.folder / f"{target.replace(':', '_')}.record"
        with one_at_a_time(made.with_suffix(".lock")):
            if made.is_file():
                known: ConversionRecord = pickle.loads(made.read_bytes())
                return known
            record = self.convert_into(target, self.folder)
            made.write_bytes(pickle.dumps(record))
            return record

    def convert_into(self, target: str, folder: Path) -> ConversionRecord:
        """Convert anew, into another folder."""
        name, _, precision = target.partition(":")
        backend = BACKENDS.get(name)()
        info = backend.info.precisions[precision]
        return backend.convert(
            self.convert(info.derived_from),
            precision,
            replace(self.spec, backend=name, precision=precision),
            self.plan_for(info.derived_from) if info.calibrated else None,
            folder,
        )


class FittedParent(EngineChain):
    """A fitted model, and what it answers to `pictures`."""

    def __init__(
        self,
        architecture: Architecture,
        folder: Path,
        change: Callable[[Any], None] | None = None,
    ) -> None:
        self.pictures, self.targets = draw_pictures(56, 32, 7, seed=2)
        self.plan = QuantizationPlan(draw_pictures(28, 32, 7, seed=1)[0], "min_max")
        answers = folder / "answers.npy"
        with one_at_a_time(folder / "model.lock"):
            model = None
            if not answers.is_file():
                model = build_fitted_model(architecture, image_size=32, classes=7, change=change)
                np.save(answers, model(self.pictures.astype(np.float32), training=False))
            super().__init__(model, SPEC, folder)
        self.outputs = np.load(answers)

    def plan_for(self, origin: str) -> QuantizationPlan:
        return self.plan

    def verify(self, target: str, outputs: NDArray[np.float32]) -> Verification:
        """Compare a target's answers to `pictures` with the parent's."""
        name, _, precision = target.partition(":")
        backend, file = BACKENDS.get(name)(), self.convert(target)
        return verify_outputs(
            self.outputs,
            outputs,
            precision=precision,
            structure=backend.inspect(file),
            unexplained=backend.list_unexplained(file, precision),
            rule=VerifyRule(),
        )


class PlainChain(EngineChain):
    """A chain whose engines are calibrated on the extremes of `pictures`, biases as they are."""

    def __init__(
        self, model: Any, spec: EngineSpec, folder: Path, pictures: NDArray[np.uint8]
    ) -> None:
        super().__init__(model, spec, folder)
        self.plan = QuantizationPlan(pictures, "min_max", correct_bias=False)

    def plan_for(self, origin: str) -> QuantizationPlan:
        return self.plan


def remember_parents(
    folder: Path, find: Callable[[str], Architecture]
) -> Callable[[str], FittedParent]:
    """Return a function from a name to its fitted model, which workers share in `folder`."""

    @cache
    def make(name: str) -> FittedParent:
        place = folder / name
        place.mkdir(parents=True, exist_ok=True)
        return FittedParent(find(name), place)

    return make
