"""Weights in half precision: the same network, half as large."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lesiontk.backends import open_engine
from tests.loose_modules import BENCHMARKS, load_benchmark

HALF = load_benchmark("half_weights")
SOURCE = BENCHMARKS / "engines" / "cnn_7class" / "keras_float32.keras"


def test_the_rounded_file_is_the_same_network_and_smaller(tmp_path: Path) -> None:
    half = tmp_path / "keras_half.keras"
    HALF.round_weights(SOURCE, half)
    assert half.stat().st_size < 0.6 * SOURCE.stat().st_size
    images = np.random.default_rng(0).integers(0, 256, (4, 128, 128, 3), dtype=np.uint8)
    with open_engine(SOURCE) as engine:
        expected, spec = engine.predict(images), engine.spec
        assert engine.assessment is not None
    with open_engine(half) as engine:
        received = engine.predict(images)
        assert engine.spec == spec
        assert engine.assessment is None
    assert 0 < np.abs(received - expected).max() < 0.005
    again = tmp_path / "again.keras"
    HALF.round_weights(SOURCE, again)
    assert again.read_bytes() == half.read_bytes()
    HALF.round_weights(half, again)  # nothing is left to round
    with open_engine(again) as engine:
        assert (engine.predict(images) == received).all()


def test_a_weight_beyond_half_precision_is_refused(tmp_path: Path) -> None:
    import h5py

    path = tmp_path / "w.h5"
    with h5py.File(path, "w") as file:
        file["kernel"] = np.array([1.0, 7e4], np.float32)
    with pytest.raises(ValueError, match="kernel has values up to 7e"):
        HALF.round_datasets(path.read_bytes())
