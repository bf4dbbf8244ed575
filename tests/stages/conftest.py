"""Prepared images in a store of their own, for the tests of a module."""

from __future__ import annotations

from pathlib import Path

import pytest

from lesiontk.data.images import ImageSet, open_images
from lesiontk.recipe import parse_recipe
from lesiontk.records import Artefact
from lesiontk.store import Store
from lesiontk.workflow.train import build_data


@pytest.fixture(scope="module")
def shared_store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("shared"), threads=1)


@pytest.fixture(scope="module")
def prepared(synthetic_folder: Path, shared_store: Store) -> Artefact:
    recipe = parse_recipe(
        {"name": "probe", "data": {"path": str(synthetic_folder), "image_size": 32}}
    )
    return build_data(shared_store, recipe, "images")


@pytest.fixture(scope="module")
def images(prepared: Artefact) -> ImageSet:
    return open_images(prepared)
