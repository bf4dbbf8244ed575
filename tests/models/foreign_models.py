"""Models of Keras 3, and what the toolkit makes of their files."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lesiontk.models.imported_model import ImportedModel, import_model
from lesiontk.system.frameworks import import_keras, import_tensorflow

LABELS = ("akiec", "bcc", "mel")

SIZE = 32

PICTURES: NDArray[np.uint8] = np.random.default_rng(3).integers(
    0, 256, (6, SIZE, SIZE, 3), dtype=np.uint8
)


@pytest.fixture(scope="module")
def keras3() -> Any:
    import_tensorflow()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import keras

    assert keras.__version__.startswith("3.")
    return keras


def settle(model: Any, seed: int = 5) -> Any:
    """Give every weight a value that is not the initializer's: scales and variances positive."""
    generator = np.random.default_rng(seed)
    weights = model.get_weights()
    scales = [generator.uniform(0.5, 1.5, w.shape) for w in weights]
    kernels = [generator.normal(0, 0.2, w.shape) for w in weights]
    model.set_weights([s if s.ndim == 1 else k for s, k in zip(scales, kernels, strict=True)])
    return model


def save(model: Any, path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save(str(path))
    return path


def bring_in(
    path: Path, *, pixels: str = "0..255", labels: tuple[str, ...] = LABELS
) -> ImportedModel:
    return import_model(path, pixels, labels, LABELS[: len(labels)], PICTURES)


def answers(model: Any, pictures: NDArray[Any] = PICTURES) -> NDArray[np.float32]:
    return np.asarray(model(pictures.astype(np.float32), training=False))


@pytest.fixture(params=["keras2", "keras3"])
def keras(request: pytest.FixtureRequest, keras3: Any) -> Any:
    return keras3 if request.param == "keras3" else import_keras()
