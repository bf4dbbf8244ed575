"""A speed-up has an interval, an emulated engine has no speed, and a noisy run is called so."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lesiontk.backends.execution import Execution
from lesiontk.bench.benchmark import EngineRow, Latency
from lesiontk.bench.measure import Measurement
from lesiontk.bench.speed import Speedup, describe_noise, estimate_speedup, list_noisy

EMULATED = Execution("runtime", "TensorRT", "another")


def make_row(
    target: str, median: float, p90: float, p10: float | None = None, **changes: Any
) -> EngineRow:
    return EngineRow(
        engine="",
        target=target,
        backend="",
        precision="",
        threads=1,
        size_bytes=1,
        latency_ms=Latency(median, p90, 100, p10 or 0.9 * median),
        **changes,
    )


def test_a_speedup_is_the_ratio_of_medians_within_its_interval() -> None:
    generator = np.random.default_rng(0)
    parent = (4.0 + generator.normal(0, 0.2, 100)).tolist()
    child = (2.0 + generator.normal(0, 0.2, 100)).tolist()
    found = estimate_speedup(parent, child, 0.95)
    assert found.value == np.median(parent) / np.median(child)
    assert found.low is not None
    assert found.high is not None
    assert 1.8 < found.low < found.value < found.high < 2.2


def test_a_noisier_run_has_a_wider_interval() -> None:
    """The twin: the same medians, and less that can be said of their ratio."""

    def width(noise: float) -> float:
        generator = np.random.default_rng(1)
        samples = 2.0 + generator.normal(0, noise, (2, 50))
        found = estimate_speedup(samples[0].tolist(), samples[1].tolist(), 0.95)
        assert found.low is not None
        assert found.high is not None
        return found.high - found.low

    assert width(0.5) > 5 * width(0.05)


def test_what_slows_both_in_the_same_rounds_cancels() -> None:
    """Rounds are drawn together: with equal engines the ratio is 1 in every draw."""
    samples = [1.0, 1.0, 9.0, 1.0, 9.0, 9.0, 1.0, 9.0] * 5
    found = estimate_speedup(samples, samples, 0.95)
    assert (found.value, found.low, found.high) == (1.0, 1.0, 1.0)
    apart = estimate_speedup(samples, samples[::-1], 0.95)
    assert apart.low is not None
    assert apart.low < 0.5


def test_one_round_has_no_interval_and_other_rounds_are_refused() -> None:
    assert estimate_speedup([2.0], [1.0], 0.95).low is None
    with pytest.raises(ValueError, match="shape"):
        estimate_speedup([2.0, 2.0], [1.0], 0.95)


def test_an_emulated_engine_has_no_speedup_and_is_none_s_measure() -> None:
    real, emulated = Measurement((2.0, 2.0), 0, 0), Measurement((1.0, 1.0), 0, 0, (EMULATED,))
    assert emulated.compare_speed(real, 0.95) is None
    assert real.compare_speed(emulated, 0.95) is None
    assert real.compare_speed(real, 0.95) == Speedup(1.0, 1.0, 1.0)


def test_a_p90_of_seven_times_the_median_is_a_noisy_run() -> None:
    rows = [make_row("tflite:int8", 1.0, 7.0), make_row("tflite:float32", 3.0, 5.9)]
    assert list_noisy(rows) == {"tflite:int8": 7.0}
    sentence = describe_noise(rows)
    assert sentence.startswith("noisy run: latencies of tflite:int8 spread by more than 2 times")
    assert "up to 7.0 times, tflite:int8" in sentence
    assert "--set bench.rounds" in sentence
    assert describe_noise(rows[1:]) == ""


def test_a_median_far_above_the_fastest_tenth_is_a_noisy_run_too() -> None:
    """Where most rounds are disturbed, the median is slow and the 90th percentile near it."""
    assert list_noisy([make_row("onnx:int8", 31.0, 40.0, p10=2.0)]) == {"onnx:int8": 15.5}
    assert list_noisy([make_row("onnx:int8", 31.0, 40.0, p10=28.0)]) == {}


def test_an_emulated_engine_is_not_called_noisy() -> None:
    rows = [make_row("tensorrt:int8", 1.0, 7.0, execution=(EMULATED,))]
    assert describe_noise(rows) == ""
