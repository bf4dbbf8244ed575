"""One workspace with one tiny model and its engines, shared by the tests of the interface."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

import lesiontk
from lesiontk.recipe import Recipe
from lesiontk.store import Store
from tests.tiny.recipe import tiny_recipe


@pytest.fixture(scope="session")
def recipe() -> Recipe:
    return tiny_recipe(gate=[])


@pytest.fixture(scope="module")
def ws(tiny_store: Store) -> lesiontk.Workspace:
    return lesiontk.Workspace(tiny_store.workspace, progress=False)


@pytest.fixture(scope="module")
def model(ws: lesiontk.Workspace, recipe: Recipe) -> lesiontk.Model:
    return ws.train(recipe)


@pytest.fixture(scope="module")
def engines(model: lesiontk.Model) -> lesiontk.Engines:
    return model.quantize()


@pytest.fixture(scope="module")
def engine(engines: lesiontk.Engines) -> lesiontk.Engine:
    return engines["tflite:int8"]


@pytest.fixture(scope="session")
def picture() -> NDArray[np.uint8]:
    """A decoded picture [48, 60, 3]."""
    return np.random.default_rng(0).integers(0, 256, (48, 60, 3), dtype=np.uint8)
