"""Equal models are equal files, whenever and after whatever they are saved."""

from __future__ import annotations

import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lesiontk.backends.keras.backend import load_model, read_spec, save_model
from lesiontk.records import EngineSpec, Preprocessing
from lesiontk.system.frameworks import import_keras

SPEC = EngineSpec(
    labels=("mel", "nv"),
    preprocessing=Preprocessing(16),
    task="probe",
    backend="keras",
    precision="float32",
    recipe="probe",
    split_hash="0" * 64,
)
IMAGES = np.random.default_rng(7).uniform(0, 255, (4, 16, 16, 3)).astype(np.float32)


def make_model() -> Any:
    keras = import_keras()
    keras.backend.clear_session()
    keras.utils.set_random_seed(7)
    layers = keras.layers
    return keras.Sequential(
        [
            layers.Input((16, 16, 3)),
            layers.Conv2D(4, 3, activation="relu"),
            layers.GlobalAveragePooling2D(),
            layers.Dropout(0.3),
            layers.Dense(2, activation="softmax"),
        ]
    )


def test_equal_models_are_equal_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fresh, used = make_model(), make_model()
    used(IMAGES, training=True)  # the dropout now has a generator, and the layers a batch
    used.set_weights(fresh.get_weights())
    save_model(fresh, SPEC, tmp_path / "fresh.keras")
    later = time.struct_time((2030, 1, 2, 3, 4, 5, 2, 2, 0))
    monkeypatch.setattr("time.localtime", lambda *args: later)
    save_model(used, SPEC, tmp_path / "used.keras")
    content = (tmp_path / "fresh.keras").read_bytes()
    assert (tmp_path / "used.keras").read_bytes() == content
    save_model(load_model(tmp_path / "used.keras"), SPEC, tmp_path / "again.keras")
    assert (tmp_path / "again.keras").read_bytes() == content
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "again.keras", "fresh.keras", "used.keras",
    ]  # fmt: skip
    with zipfile.ZipFile(tmp_path / "used.keras") as archive:
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert b"2030" not in archive.read("metadata.json")


def test_another_weight_is_another_file_and_the_model_is_the_one_that_was_saved(
    tmp_path: Path,
) -> None:
    """The twin."""
    model = make_model()
    save_model(model, SPEC, tmp_path / "one.keras")
    before = np.asarray(model(IMAGES, training=False))
    np.testing.assert_array_equal(load_model(tmp_path / "one.keras")(IMAGES), before)
    assert read_spec(tmp_path / "one.keras") == SPEC
    weights = model.get_weights()
    weights[0][0, 0, 0, 0] += 1e-3
    model.set_weights(weights)
    save_model(model, SPEC, tmp_path / "two.keras")
    assert (tmp_path / "one.keras").read_bytes() != (tmp_path / "two.keras").read_bytes()
