"""Tiny networks, one for each kind of input normalization."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lesiontk.models.architecture import Architecture, Normalization
from lesiontk.system.frameworks import import_keras
from tests.conformance.fitted_models import FittedParent, remember_parents

NORMALIZATIONS = {
    "cnn": Normalization(1 / 128, (-1.0, -1.0, -1.0)),
    "lite": Normalization(1 / 128, (-127 / 128, -127 / 128, -127 / 128)),
    "resnet": Normalization(1 / 127.5, (-1.0, -1.0, -1.0)),
    "vgg": Normalization(1.0, (-123.68, -116.779, -103.939)),
}


def tiny_body(x: Any) -> Any:
    """Two convolutions."""
    layers = import_keras().layers
    x = layers.Conv2D(32, 3, 2, activation="relu", name="first")(x)
    return layers.Conv2D(48, 3, 2, activation="relu", name="second")(x)


@pytest.fixture(scope="session")
def tiny_parent(run_folder: Path) -> Callable[[str], FittedParent]:
    """Return a function from a normalization's name to a fitted network that begins with it."""
    return remember_parents(
        run_folder / "normalizations",
        lambda name: Architecture(f"tiny_{name}", 32, NORMALIZATIONS[name], tiny_body),
    )
