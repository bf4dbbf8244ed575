"""What is said of raw latencies; and a measuring process that fails says why. Nothing is timed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lesiontk.bench.benchmark import EngineRow, Latency
from lesiontk.bench.measure import Measurement, measure_engines
from lesiontk.errors import DataError
from lesiontk.progress import NoProgress
from lesiontk.recipe import BenchRule


def test_latencies_of_a_known_case() -> None:
    """Of 1, 2, ..., 101 ms the median is 51 and nine tenths lie at or below 91."""
    samples = tuple(float(n) for n in range(101, 0, -1))
    assert Measurement(samples, 0, 0).latency == Latency(p10=11.0, median=51.0, p90=91.0, n=101)


def test_one_slow_round_moves_no_median() -> None:
    calm = Measurement((2.0,) * 30, 0, 0).latency
    disturbed = Measurement((2.0,) * 29 + (900.0,), 0, 0).latency
    assert disturbed == calm == Latency(p10=2.0, median=2.0, p90=2.0, n=30)


def test_many_slow_rounds_do() -> None:
    """The twin of the test above."""
    assert Measurement((2.0,) * 10 + (9.0,) * 20, 0, 0).latency.median == 9.0


def test_latencies_are_rounded_to_a_tenth_of_a_microsecond() -> None:
    received = Measurement((1 / 3, 1 / 3, 1 / 3), 0, 0).latency
    assert received.median == 0.3333


def test_a_row_has_all_that_was_measured() -> None:
    measurement = Measurement((1.5, 2.5), 1000, 2**20, image_size=96)
    row = EngineRow(
        engine="", target="", backend="", precision="", threads=1, **measurement.row_fields()
    )
    assert (row.latency.n, row.latency.median) == (2, 2.0)
    assert (row.size_bytes, row.peak_memory_bytes, row.image_size) == (1000, 2**20, 96)


def test_a_measuring_process_that_fails_says_why(tmp_path: Path) -> None:
    engines = {"tflite:int8": tmp_path / "missing.tflite"}
    images = np.zeros((1, 32, 32, 3), np.uint8)
    with pytest.raises(DataError) as caught:  # the file is at fault, not the machine
        measure_engines(engines, images, BenchRule(), NoProgress())
    assert f"engine file {tmp_path / 'missing.tflite'} does not exist" in str(caught.value)
