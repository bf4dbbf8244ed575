"""Where engines lie below the roof; the probe of the peak runs and is not judged."""

from __future__ import annotations

from pathlib import Path

import pytest

from lesiontk.bench import peak
from lesiontk.bench.peak import Peak, measure_peak
from lesiontk.bench.roofline import Work, count_work, find_peak, locate_engine

PEAK = Peak(threads=1, float32_gops=100.0, int8_gops=400.0, bandwidth_gbs=10.0)
ENGINES = Path(__file__).parents[2] / "benchmarks" / "engines" / "cnn_7class"


def test_the_roof_is_the_bandwidth_or_the_peak() -> None:
    assert PEAK.find_roof(4.0, integer=False) == PEAK.find_roof(4.0, integer=True) == 40.0
    assert PEAK.find_roof(30.0, integer=False) == 100.0
    assert PEAK.find_roof(30.0, integer=True) == 300.0
    assert PEAK.find_roof(90.0, integer=True) == 400.0


def test_an_engine_is_compared_with_the_peak_of_its_precision() -> None:
    work = Work(macs=50_000_000, bytes_moved=1_000_000)
    assert work.intensity == 100.0
    integer = locate_engine("a", "int8", work, 0.5, PEAK)
    assert (integer.gops, integer.roof_gops, integer.share) == (200.0, 400.0, 0.5)
    floating = locate_engine("b", "float32", work, 2.0, PEAK)
    assert (floating.gops, floating.roof_gops, floating.share) == (50.0, 100.0, 0.5)


def test_the_peak_is_that_of_the_threads() -> None:
    assert find_peak([PEAK], 1) is PEAK
    assert find_peak([PEAK], 2) is None


def test_an_int8_engine_moves_a_byte_for_each_value() -> None:
    integer = count_work(ENGINES / "tflite_int8.tflite", "int8")
    assert integer is not None
    assert integer.macs == 85_388_464
    floating = count_work(ENGINES / "tflite_int8.tflite", "float32")
    assert floating is not None
    assert floating.bytes_moved > 3 * integer.bytes_moved
    assert count_work(ENGINES / "keras_float32.keras", "float32") is None


def test_the_probe_returns_positive_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peak, "SECONDS", 0.001)
    monkeypatch.setattr(peak, "SIZE", 32)
    monkeypatch.setattr(peak, "COPY_BYTES", 2**16)
    found = measure_peak(2)
    assert found.threads == 2
    assert min(found.float32_gops, found.int8_gops, found.bandwidth_gbs) > 0
