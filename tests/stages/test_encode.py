"""A frozen encoder as teacher: features of several views, a head on them, and a student."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from lesiontk.backends import open_engine
from lesiontk.backends.reference_outputs import engine_file
from lesiontk.cli.main import cli
from lesiontk.errors import DataError, UsageError
from lesiontk.evaluate.metrics import compute_metrics
from lesiontk.recipe import dump_recipe
from lesiontk.records import Artefact
from lesiontk.stages import encode
from lesiontk.stages.encoder_head import EncoderTeacher
from lesiontk.store import Store
from lesiontk.workflow.encode import fit_encoder
from lesiontk.workflow.train import build_data, train_recipe
from tests.encoders import write_encoder
from tests.tiny.recipe import TRAIN, tiny_recipe

KEYS: dict[str, Any] = {"image_size": 32, "pixels": "0..1", "views": 2, "augment": "flips"}


@pytest.fixture(scope="module")
def store(tiny_store: Store) -> Store:
    return tiny_store


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_encoder(tmp_path_factory.mktemp("encoder") / "colors.onnx", "vector")


@pytest.fixture(scope="module")
def made(store: Store, encoder: Path) -> Artefact:
    return fit_encoder(store, tiny_recipe(), encoder, pretraining="made-up colors", **KEYS)


def features_of(store: Store, made: Artefact) -> Artefact:
    return store.parent(made, "features")


def test_the_features_are_those_of_the_plain_view_and_of_another(
    store: Store, made: Artefact
) -> None:
    features = features_of(store, made)
    training = np.load(features.file("training.npy"))
    subsets = list(encode.read_split(store.parent(features, "split")))
    count = {s: sum(row.subset == s for row in subsets) for s in ("train", "validation")}
    assert training.shape == (2, count["train"], 12)
    assert np.load(features.file("validation.npy")).shape == (count["validation"], 12)
    plain, flipped = training.astype(float).reshape(2, -1, 3, 2, 2)
    same = np.abs(plain - flipped).max(axis=(1, 2, 3)) < 1e-2
    assert 0.1 < same.mean() < 0.5  # a quarter keeps both directions
    flips = [plain, plain[..., ::-1], plain[..., ::-1, :], plain[..., ::-1, ::-1]]
    nearest = np.min([np.abs(flipped - f).max(axis=(1, 2, 3)) for f in flips], axis=0)
    assert np.quantile(nearest, 0.9) < 0.05  # but for the resize of the training picture


def test_the_engine_gives_what_validation_was_scored_on(store: Store, made: Artefact) -> None:
    images = build_data(store, tiny_recipe(), "images")
    from lesiontk.data.images import open_images

    prepared = open_images(images)
    rows = prepared.indices("validation")
    with open_engine(engine_file(made)) as engine:
        assert engine.spec.labels == prepared.labels
        assert engine.spec.split_hash == prepared.split_hash
        probabilities = engine.predict(prepared.pixels[rows])
    scored = compute_metrics(prepared.targets[rows], probabilities, prepared.labels)
    expected = made.read_facts(EncoderTeacher).validation
    assert scored["balanced_accuracy"][0] == pytest.approx(expected.balanced_accuracy, abs=0.02)
    assert expected.n == len(rows)


def test_an_encoder_that_is_not_known_to_be_blind_marks_its_student(
    store: Store, made: Artefact
) -> None:
    assert made.facts["may_have_seen_test"] is True
    student = train_recipe(store, tiny_recipe({"distill": {"teacher": made.name, "train": TRAIN}}))
    assert student.facts["may_have_seen_test"] is True
    assert student.facts["change"]["pretraining"] == "made-up colors"


def test_one_that_is_known_to_be_blind_does_not(store: Store, encoder: Path) -> None:
    blind = fit_encoder(store, tiny_recipe(), encoder, has_not_seen_test=True, **KEYS)
    assert not blind.facts["may_have_seen_test"]
    with open_engine(engine_file(blind)) as engine:
        assert not engine.spec.may_have_seen_test


def test_an_interrupted_run_continues(
    store: Store, made: Artefact, encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encode, "PART", 10)
    real, calls = encode.decode_all, []

    def fail_later(*arguments: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return real(*arguments, **options)

    monkeypatch.setattr(encode, "decode_all", fail_later)
    keys = {**KEYS, "seed": 2}
    with pytest.raises(KeyboardInterrupt):
        fit_encoder(store, tiny_recipe(), encoder, **keys)
    done = len(calls)
    monkeypatch.setattr(encode, "decode_all", real)
    resumed = fit_encoder(store, tiny_recipe(), encoder, **keys)
    assert done == 4
    again = np.load(features_of(store, resumed).file("training.npy"))
    np.testing.assert_array_equal(
        again[0], np.load(features_of(store, made).file("training.npy"))[0]
    )


def test_the_command(store: Store, encoder: Path, made: Artefact, tmp_path: Path) -> None:
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(dump_recipe(tiny_recipe()))
    words = f"encoder {encoder} --recipe {recipe} --image-size 32 --pixels 0..1 --views 2 --augment"
    done = CliRunner().invoke(
        cli,
        [*words.split(), "flips", "--pretraining", "made-up colors", "--json", "--quiet",
         "--workspace", str(store.workspace)],
    )  # fmt: skip
    assert done.exception is None, done.output
    document = json.loads(done.stdout)
    assert document["name"] == made.name
    assert document["validation"]["n"] > 0


@pytest.mark.parametrize(
    ("keys", "error", "message"),
    [
        ({"augment": "flip"}, UsageError, "unknown augmentation 'flip'.*'flips'"),
        ({"output": "vectors"}, UsageError, "no tensor 'vectors'"),
        ({"image_size": 48}, UsageError, "--image-size is 48, expected 32"),
        ({"views": 0}, UsageError, r"views: .*\(received 0\)"),
    ],
)
def test_a_wrong_option_is_refused(
    keys: dict[str, Any], error: type[Exception], message: str, store: Store, encoder: Path
) -> None:
    with pytest.raises(error, match=message):
        fit_encoder(store, tiny_recipe(), encoder, **{**KEYS, **keys})


def test_a_missing_file_is_refused(store: Store, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist; expected an ONNX file"):
        fit_encoder(store, tiny_recipe(), tmp_path / "none.onnx", **KEYS)
