"""A speed-up has an interval, an emulated engine has no speed, and a noisy run is called so."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from lesiontk.backends.execution import Execution
from lesiontk.bench.benchmark import EngineRow
from lesiontk.bench.speed import Speedup, describe_noise, estimate_speedup, list_noisy
from lesiontk.bench.timing import Latency, ScenarioTiming
from tests.bench.measurements import make_attempt, make_measurement

EMULATED = Execution("runtime", "TensorRT", "another")


def make_row(target: str, noise: tuple[str, ...] = (), **changes: Any) -> EngineRow:
    timing = ScenarioTiming(
        scenario="single_stream", threads=1, streams=1, batch=1, images_per_second=1.0, rounds=20,
        latency_ms=Latency(1.0, 1.1, 100), warmup=30, spread=0.4, others_load=0.0, attempts=3,
        noise=noise,
    )  # fmt: skip
    return EngineRow(
        engine="", target=target, backend="", precision="", threads=1, size_bytes=1,
        scenarios=(timing,), **changes,
    )  # fmt: skip


def in_rounds(samples: npt.NDArray[np.float64], size: int) -> list[list[float]]:
    return [list(part) for part in samples.reshape(-1, size)]


def test_a_speedup_is_the_ratio_of_medians_within_its_interval() -> None:
    generator = np.random.default_rng(0)
    parent = in_rounds(4.0 + generator.normal(0, 0.2, 100), 5)
    child = in_rounds(2.0 + generator.normal(0, 0.2, 200), 10)
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
        found = estimate_speedup(*(in_rounds(part, 5) for part in samples), 0.95)
        assert found.low is not None
        assert found.high is not None
        return found.high - found.low

    assert width(0.5) > 5 * width(0.05)


def test_what_slows_both_in_the_same_rounds_cancels() -> None:
    """Rounds are drawn together: with equal engines the ratio is 1 in every draw."""
    samples = [[value] * 3 for value in [1.0, 1.0, 9.0, 1.0, 9.0, 9.0, 1.0, 9.0] * 5]
    found = estimate_speedup(samples, samples, 0.95)
    assert (found.value, found.low, found.high) == (1.0, 1.0, 1.0)
    apart = estimate_speedup(samples, samples[::-1], 0.95)
    assert apart.low is not None
    assert apart.low < 0.5


def test_rounds_are_resampled_and_not_their_samples() -> None:
    """Samples of a round that are alike count as one: the interval is as wide as with one each."""
    generator = np.random.default_rng(2)
    parent, child = 2.0 + generator.normal(0, 0.4, (2, 20))

    def width(copies: int) -> float:
        found = estimate_speedup(
            [[value] * copies for value in parent], [[value] * copies for value in child], 0.95
        )
        assert found.low is not None
        assert found.high is not None
        return found.high - found.low

    assert width(30) == pytest.approx(width(1), rel=0.2)
    apart = [[value] for value in np.repeat(parent, 30)], [[v] for v in np.repeat(child, 30)]
    wrong = estimate_speedup(*apart, 0.95)
    assert wrong.low is not None
    assert wrong.high is not None
    assert wrong.high - wrong.low < 0.5 * width(30)


def test_one_round_has_no_interval_and_other_rounds_are_refused() -> None:
    assert estimate_speedup([[2.0]], [[1.0]], 0.95).low is None
    with pytest.raises(ValueError, match="2 and 1 rounds"):
        estimate_speedup([[2.0], [2.0]], [[1.0]], 0.95)


def test_an_emulated_engine_has_no_speedup_and_is_none_s_measure() -> None:
    real = make_measurement(make_attempt([2.0, 2.0]))
    timing = replace(real.single_stream, execution=(EMULATED,))
    emulated = replace(real, timings=(timing,))
    assert emulated.compare_speed(real, 0.95) is None
    assert real.compare_speed(emulated, 0.95) is None
    assert real.compare_speed(real, 0.95) == Speedup(1.0, 1.0, 1.0)


def test_a_noisy_row_is_said_with_the_remedy() -> None:
    rows = [make_row("tflite:int8", ("other programs used 40% of the cores",)), make_row("onnx")]
    assert list(list_noisy(rows)) == ["tflite:int8"]
    sentence = describe_noise(rows)
    assert sentence.startswith("noisy run after 3 attempts: the latencies of tflite:int8 vary")
    assert "single stream: other programs used 40% of the cores" in sentence
    assert "--set bench.rounds" in sentence
    assert describe_noise(rows[1:]) == ""


def test_an_emulated_engine_is_not_called_noisy() -> None:
    assert describe_noise([make_row("tensorrt:int8", ("noise",), execution=(EMULATED,))]) == ""
