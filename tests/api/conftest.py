"""One workspace with one tiny model and its engines, shared by the tests of the interface."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

import lesiontk
from lesiontk.recipe import Recipe, parse_recipe
from tests.tiny.recipe import LEARNED

QUICK = {"evaluate.resamples": 100, "bench.rounds": 20, "explain.images": 0, "gate": []}


@pytest.fixture(scope="session")
def recipe() -> Recipe:
    return parse_recipe(LEARNED)


@pytest.fixture(scope="session")
def ws(tmp_path_factory: pytest.TempPathFactory) -> lesiontk.Workspace:
    return lesiontk.Workspace(tmp_path_factory.mktemp("api") / "workspace", progress=False)


@pytest.fixture(scope="session")
def model(ws: lesiontk.Workspace, recipe: Recipe) -> lesiontk.Model:
    return ws.train(recipe, set=QUICK)


@pytest.fixture(scope="session")
def engines(model: lesiontk.Model) -> lesiontk.Engines:
    return model.quantize()


@pytest.fixture(scope="session")
def engine(engines: lesiontk.Engines) -> lesiontk.Engine:
    return engines["tflite:int8"]


@pytest.fixture(scope="session")
def picture() -> NDArray[np.uint8]:
    """A decoded picture [48, 60, 3]."""
    return np.random.default_rng(0).integers(0, 256, (48, 60, 3), dtype=np.uint8)
