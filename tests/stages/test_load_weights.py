"""Weights trained elsewhere: in the model's own layers, judged, compared with what it came from."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from lesiontk.backends.keras.backend import load_model, read_spec, save_model
from lesiontk.backends.reference_outputs import engine_file
from lesiontk.cli.main import cli
from lesiontk.data.images import open_images
from lesiontk.errors import DataError
from lesiontk.records import Artefact
from lesiontk.stages import load_weights as load_weights_stage
from lesiontk.stages.load_weights import TRAINED_BY
from lesiontk.store import Store
from lesiontk.workflow.compress import compress_model
from lesiontk.workflow.lineage import trained_of
from lesiontk.workflow.train import train_recipe
from tests.tiny.recipe import TRAIN as RECOVER
from tests.tiny.recipe import tiny_recipe


@pytest.fixture(scope="module")
def store(tiny_store: Store) -> Store:
    return tiny_store


@pytest.fixture(scope="module")
def trained(store: Store) -> Artefact:
    return train_recipe(store, tiny_recipe())


@pytest.fixture(scope="module")
def pruned(store: Store, trained: Artefact) -> Artefact:
    return compress_model(store, trained, "prune", {"keep_macs": 0.6, "recover": RECOVER})


def write_trained(model: Artefact, out: Path, *, blind: bool = False, **extra: object) -> Path:
    """Write a model's file as a training elsewhere would: other weights, the same layers.

    A `blind` one never finds the critical class.
    """
    network, spec = load_model(engine_file(model)), read_spec(engine_file(model))
    draw = np.random.default_rng(1)
    values = [value + draw.normal(0, 1e-3, value.shape) for value in network.get_weights()]
    if blind:
        values[-1][spec.labels.index(str(model.facts["critical"]))] -= 50
    network.set_weights(values)
    save_model(network, replace(spec, extra={**spec.extra, **extra}), out)
    return out


@pytest.fixture(scope="module")
def file(pruned: Artefact, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("elsewhere") / "better.keras"
    return write_trained(pruned, out, **{TRAINED_BY: {"epochs": 85}})


@pytest.fixture(scope="module")
def adopted(store: Store, pruned: Artefact, file: Path) -> Artefact:
    arguments = [str(file), "--model", pruned.name, "--workspace", str(store.workspace), "--json"]
    result = CliRunner().invoke(cli, ["load-weights", *arguments], catch_exceptions=False)
    return store.resolve(json.loads(result.stdout)["model"], "model")


def test_the_weights_are_the_files(adopted: Artefact, file: Path) -> None:
    ours, theirs = (load_model(path).get_weights() for path in (engine_file(adopted), file))
    for mine, its in zip(ours[:-1], theirs[:-1], strict=True):
        np.testing.assert_array_equal(mine, its)
    assert adopted.facts["change"] == {"file": "better.keras", TRAINED_BY: {"epochs": 85}}


def test_what_the_model_is_stays_known(store: Store, adopted: Artefact, trained: Artefact) -> None:
    assert [step["stage"] for step in adopted.facts["history"]] == ["train", "prune"]
    assert adopted.facts["architecture"] == trained.facts["architecture"]
    assert trained_of(store, adopted).name == trained.name
    assert not adopted.facts["may_have_seen_test"]


def test_it_is_judged_on_validation(store: Store, adopted: Artefact) -> None:
    images = open_images(store.parent(adopted, "images"))
    rows = images.indices("validation")
    said = load_model(engine_file(adopted))(images.pixels[rows].astype(np.float32))
    right = float((np.argmax(said, axis=1) == images.targets[rows]).mean())
    assert adopted.facts["validation"]["metrics"]["accuracy"] == pytest.approx(right)


def test_it_may_be_compressed_further(store: Store, adopted: Artefact) -> None:
    further = compress_model(store, adopted, "prune", {"keep_macs": 0.8, "recover": RECOVER})
    assert [step["stage"] for step in further.facts["history"]] == [
        "train",
        "prune",
        "load_weights",
    ]


def test_the_recall_of_the_critical_class_is_kept_as_by_a_training(
    store: Store, pruned: Artefact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    critical = str(pruned.facts["critical"])
    monkeypatch.setattr(load_weights_stage, "recalls_to_keep", lambda *_: {critical: 0.9})
    blind = write_trained(pruned, tmp_path / "blind.keras", blind=True)
    adopted = compress_model(store, pruned, "load_weights", {"file": str(blind)})
    assert adopted.facts["recalls"][critical] >= 0.9
    assert adopted.facts["recall_constraint"]["wanted"] == {critical: 0.9}
    assert adopted.facts["recall_constraint"]["bias_raised"][critical] > 40


def test_a_file_of_another_network_is_refused_by_the_weight_that_differs(
    store: Store, pruned: Artefact, trained: Artefact, tmp_path: Path
) -> None:
    other = write_trained(trained, tmp_path / "whole.keras")
    with pytest.raises(DataError, match=r"whole.keras has \S+:0 of \[.*\]; expected \S+:0 of \["):
        compress_model(store, pruned, "load_weights", {"file": str(other)})


def test_weights_of_another_split_are_refused(
    store: Store, pruned: Artefact, tmp_path: Path
) -> None:
    path = engine_file(pruned)
    spec = replace(read_spec(path), split_hash="f" * 64)
    save_model(load_model(path), spec, tmp_path / "other.keras")
    with pytest.raises(DataError, match="was trained on the split ffffffffffff"):
        compress_model(store, pruned, "load_weights", {"file": str(tmp_path / "other.keras")})


def test_of_a_file_that_tells_nothing_it_is_said_that_it_may_know_the_test_images(
    store: Store, pruned: Artefact, tmp_path: Path
) -> None:
    load_model(engine_file(pruned)).save(tmp_path / "mute.keras")
    adopted = compress_model(store, pruned, "load_weights", {"file": str(tmp_path / "mute.keras")})
    assert adopted.facts["may_have_seen_test"]


def test_weights_that_are_no_numbers_are_refused(
    store: Store, pruned: Artefact, tmp_path: Path
) -> None:
    model = load_model(engine_file(pruned))
    model.set_weights([np.full_like(value, np.nan) for value in model.get_weights()])
    save_model(model, read_spec(engine_file(pruned)), tmp_path / "diverged.keras")
    with pytest.raises(DataError, match="not finite; its training diverged"):
        compress_model(store, pruned, "load_weights", {"file": str(tmp_path / "diverged.keras")})


def test_orders_that_cannot_be_told_are_refused(
    store: Store, pruned: Artefact, tmp_path: Path
) -> None:
    file = write_trained(pruned, tmp_path / "odd.keras", **{TRAINED_BY: "my loop"})
    with pytest.raises(DataError, match="records its training as 'my loop'; expected names and"):
        compress_model(store, pruned, "load_weights", {"file": str(file)})


def test_a_file_that_is_not_there_is_named(store: Store, pruned: Artefact) -> None:
    with pytest.raises(DataError, match=r"load_weights.file \S+nowhere.keras does not exist"):
        compress_model(store, pruned, "load_weights", {"file": "nowhere.keras"})
