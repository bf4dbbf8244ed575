"""What the stage leaves behind: a model that says where it comes from."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

from lesiontk.backends.keras.backend import KerasBackend
from lesiontk.recipe import Recipe
from lesiontk.records import EngineSpec
from lesiontk.stages import train as train_stage
from lesiontk.store import Store
from lesiontk.train.checkpoints import TrainingState, save_state
from lesiontk.workflow.benchmark import PARENT
from lesiontk.workflow.convert import convert_model
from lesiontk.workflow.train import train_recipe
from tests.tiny.recipe import TINY, tiny_recipe
from tests.train.events import read_scalars


def read_spec(store: Store, recipe: Recipe) -> EngineSpec:
    engine = convert_model(store, train_recipe(store, recipe), [PARENT])[PARENT]
    with KerasBackend().open(engine.file(str(engine.facts["file"]))) as opened:
        return opened.spec


def test_a_model_of_a_leaky_split_carries_a_warning(tiny_store: Store) -> None:
    leaking = {**TINY["data"], "split": {"leaky": True}}
    mixed = tiny_recipe(data=leaking, convert=[PARENT])
    honest, leaky = (read_spec(tiny_store, recipe) for recipe in (tiny_recipe(), mixed))
    assert "not a medical device" in honest.notice
    assert "leaks" not in honest.notice
    assert "split that leaks lesions" in leaky.notice
    assert honest.split_hash != leaky.split_hash


@pytest.mark.usefixtures("tiny_store")  # its network
def test_tensorboard_finds_the_epochs_while_a_network_trains_and_in_its_model(
    tmp_path: Path,
) -> None:
    """Below the workspace, as `tensorboard --logdir WORKSPACE` looks for them."""
    workspace = tmp_path / "workspace"
    running: list[dict[str, dict[int, float]]] = []

    def on_epoch(epoch: int, metrics: Mapping[str, float]) -> None:
        (events,) = workspace.rglob("tensorboard")
        assert events.parent.parent.name == ".scratch"
        running.append(read_scalars(events))

    model = train_recipe(Store(workspace).observed_by(on_epoch), tiny_recipe())
    (events,) = workspace.rglob("tensorboard")
    assert events == model.path / "tensorboard"
    with model.file("curves.csv").open(newline="") as stream:
        (curve,) = csv.DictReader(stream)
    assert running == [read_scalars(events)]
    for tag, name in (("loss", "loss"), ("balanced_accuracy",) * 2, ("recall_mel", "recall[mel]")):
        assert running[0][tag] == {1: pytest.approx(float(curve[name]), rel=1e-5)}


@pytest.mark.parametrize(("epoch", "expected"), [(0, "imagenet"), (1, "none")])
def test_pretrained_weights_are_read_unless_a_checkpoint_replaces_them(
    tiny_workspace: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    epoch: int,
    expected: str,
) -> None:
    """A kill before the first checkpoint must not leave the training with random weights."""
    store = Store(Path(shutil.copytree(tiny_workspace, tmp_path / "workspace")))
    asked = []

    class AskedError(Exception):
        pass

    def note_weights(*_: object, weights: str, **__: object) -> None:
        asked.append(weights)
        raise AskedError

    def start(
        build: object, images: object, section: object, scratch: Path, *_: object, **__: object
    ) -> None:
        (scratch / "best.weights.h5").touch()
        if epoch:
            save_state(TrainingState(epoch=epoch), scratch)
        build(32)  # type: ignore[operator]

    monkeypatch.setattr(train_stage, "build_model", note_weights)
    monkeypatch.setattr(train_stage, "train_model", start)
    with pytest.raises(AskedError):
        train_recipe(store, tiny_recipe(model={"architecture": "vgg16", "weights": "imagenet"}))
    assert asked == [expected]
