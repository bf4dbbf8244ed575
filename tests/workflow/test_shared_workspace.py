"""A machine without images and training continues with what another one shared."""

from __future__ import annotations

from pathlib import Path

import pytest

from lesiontk.store import SharedStore, Store
from lesiontk.workflow.convert import convert_model
from lesiontk.workflow.lineage import recipe_of
from lesiontk.workflow.search import Search
from lesiontk.workflow.train import train_recipe
from tests.tiny.recipe import tiny_recipe
from tests.workflow.stub_study import make_space, read_log, stub_search

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


@pytest.mark.parametrize("shares", [True, False])
def test_machines_that_search_together_train_once_and_correct_for_the_choice(
    shares: bool, tmp_path: Path
) -> None:
    (tmp_path / "share").mkdir()
    url = (tmp_path / "share").as_uri()
    storage = f"sqlite:///{tmp_path / 'study.db'}"

    def search(name: str, trials: int) -> Search:
        store = Store(tmp_path / name, threads=1, shared=SharedStore(url) if shares else None)
        space, log = make_space(trials=trials), tmp_path / f"{name}.log"
        found = stub_search(store, space, storage=storage, log=log)
        found.run()
        return found

    search("one", 6)
    result = search("two", 12).results.collect()
    assert result.candidates == 12
    logs = [read_log(tmp_path / f"{name}.log") for name in ("one", "two")]
    values = [{line.value for line in log if line.stage == "stub_train"} for log in logs]
    assert all(values)
    if shares:
        assert not values[0] & values[1]
        assert [found.metric for found in result.winners] == ["balanced_accuracy"]
    else:
        assert values[0] & values[1]
        assert result.without_winners == "some engines are in the workspaces of other machines"
