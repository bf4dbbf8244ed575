"""A machine without images and training continues with what another one shared."""

from __future__ import annotations

from pathlib import Path

import pytest

from lesiontk.store import SharedStore, Store
from lesiontk.workflow.convert import convert_model
from lesiontk.workflow.lineage import recipe_of
from lesiontk.workflow.train import train_recipe
from tests.tiny.recipe import tiny_recipe

TARGET = "tflite:int8"


def test_another_machine_converts_a_model_by_its_name(
    tiny_store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "lesiontk")
    (tmp_path / "share").mkdir()
    url = (tmp_path / "share").as_uri()
    here = Store(tiny_store.workspace, threads=1, shared=SharedStore(url))
    model = here.resolve("latest", "model")
    here.share(model)

    trained = train_recipe(
        Store(tmp_path / "third", threads=1, shared=SharedStore(url)), tiny_recipe()
    )
    assert trained.content == model.content
    assert ": stage " not in caplog.text

    there = Store(tmp_path / "other", threads=1, shared=SharedStore(url))
    made = convert_model(there, there.resolve(model.name, "model"), [TARGET])
    assert recipe_of(made[TARGET]).name == "tiny"

    caplog.clear()
    again = convert_model(here, model, [TARGET])
    assert again[TARGET].content == made[TARGET].content
    assert f"{made[TARGET].name}: fetched from {url}" in caplog.text
    assert ": stage " not in caplog.text
