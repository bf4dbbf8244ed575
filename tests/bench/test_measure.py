"""The rules of a measurement, on made-up latencies; a measuring process that fails says why."""

from __future__ import annotations

import json
import math
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lesiontk.bench import measure
from lesiontk.bench.benchmark import EngineRow
from lesiontk.bench.measure import measure_engines
from lesiontk.bench.timing import Attempt, Latency, Timing
from lesiontk.bench.worker import Ready, RoundSamples, TimingRequest
from lesiontk.errors import DataError
from lesiontk.evaluate.latency_rounds import least_samples
from lesiontk.progress import NoProgress
from lesiontk.recipe import BenchRule
from lesiontk.system.energy import EnergyCounter
from tests.bench.measurements import make_attempt, make_measurement
from tests.deploy.bundles import ENGINES


def test_latencies_of_a_known_case() -> None:
    """Of 1, 2, ..., 101 ms the median is 51 and nine tenths lie at or below 91."""
    samples = [float(n) for n in range(101, 0, -1)]
    assert Latency.of(samples) == Latency(p10=11.0, median=51.0, p90=91.0, n=101)


def test_latencies_are_rounded_to_a_tenth_of_a_microsecond() -> None:
    assert Latency.of([1 / 3] * 3).median == 0.3333


@pytest.mark.parametrize(("quantile", "n"), [(0.9, 36), (0.99, 368)])
def test_a_percentile_is_shown_from_the_number_of_samples_that_bounds_it(
    quantile: float, n: int
) -> None:
    """The upper end of its interval is the largest sample, unless that is likely below it."""
    assert least_samples(quantile) == n
    assert quantile**n <= 0.025 < quantile ** (n - 1)
    name = f"p{100 * quantile:.0f}"
    assert getattr(Latency.of([1.0] * (n - 1)), name) is None
    assert getattr(Latency.of([1.0] * n), name) == 1.0


def test_calm_rounds_are_calm() -> None:
    assert make_attempt([2.0, 2.1, 1.9, 2.0, 2.05]).list_noise() == ()
    assert make_attempt([2.0] * 5, None).list_noise() == ()


def test_rounds_that_differ_are_noisy() -> None:
    """The twin: the same samples, in other rounds, are not."""
    (clause,) = make_attempt([1.0, 1.0, 1.0, 2.0, 2.0]).list_noise()
    assert "spread by 100%" in clause
    mixed = Attempt(rounds_ms=((1.0, 1.0, 2.0), (1.0, 1.0, 2.0), (1.0, 1.0, 2.0)))
    assert mixed.list_noise() == ()


def test_the_load_of_other_programs_is_noise() -> None:
    (clause,) = make_attempt([2.0] * 5, 0.4).list_noise()
    assert "other programs used 40% of the cores" in clause


def test_a_row_has_all_that_was_measured() -> None:
    calm, noisy = make_attempt([2.0] * 5), make_attempt([1.0, 9.0] * 3)
    measurement = make_measurement(noisy, calm, chosen=1)
    row = measurement.to_row(engine="", target="", backend="", precision="", threads=1)
    (timing,) = row.scenarios
    assert (row.latency.n, row.latency.median) == (15, 2.0)
    assert (timing.attempts, timing.noise, timing.rounds) == (2, (), 5)
    assert timing.images_per_second == 500.0
    assert (row.size_bytes, row.peak_memory_bytes, row.image_size) == (1000, 2**20, 96)
    assert row.load is not None
    assert row.load.above_idle_bytes == 3
    assert EngineRow.from_document(row.to_document()) == row


def test_an_engine_that_never_became_stable_is_noisy() -> None:
    measurement = make_measurement(make_attempt([2.0] * 5), warmed_up=False)
    row = measurement.to_row(engine="", target="", backend="", precision="", threads=1)
    (timing,) = row.scenarios
    assert timing.noise == ("its latency did not become stable in the warm-up",)


class FakeWorker:
    """Takes as long in each of its rounds as it is told, and notes when it ran."""

    def __init__(self, name: str, medians: Iterator[float], order: list[str]) -> None:
        self._name, self._medians, self._order = name, medians, order

    def wait_ready(self) -> Ready:
        return Ready(
            threads=1, streams=1, batch=1, queries=2, warmup=30, warmed_up=True, execution=(),
            image_size=32,
        )  # fmt: skip

    def run_round(self) -> RoundSamples:
        self._order.append(self._name)
        median = next(self._medians)
        return RoundSamples(((median,), (median,)), 0.0)  # after one that is not timed

    def run_path(self) -> RoundSamples:
        return RoundSamples((), 0.0)


def time_fakes(
    monkeypatch: pytest.MonkeyPatch,
    medians: dict[str, list[float]],
    deadline: float = math.inf,
    **rule: int,
) -> tuple[dict[str, Timing], list[str]]:
    """Return the timings of engines with these medians, and the order in which they ran."""
    order: list[str] = []

    @contextmanager
    def start(request: TimingRequest, _: Path) -> Iterator[FakeWorker]:
        yield FakeWorker(request.engine, iter(medians[request.engine]), order)

    monkeypatch.setattr(measure, "start_worker", start)
    monkeypatch.setattr(measure, "read_busy_seconds", lambda: None)
    files = {name: Path(name) for name in medians}
    images = np.zeros((1, 32, 32, 3), np.uint8)
    timed = measure.time_engines(files, images, BenchRule(**rule), NoProgress(), deadline=deadline)
    return timed, order


def test_each_round_runs_every_engine_in_a_random_order_of_the_seed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    medians = {name: [1.0] * 8 for name in "abcd"}
    orders = [
        time_fakes(monkeypatch, medians, rounds=8, repeats=0, seed=seed)[1] for seed in (1, 1, 2)
    ]
    turns = ["".join(orders[0][4 * turn : 4 * turn + 4]) for turn in range(8)]
    assert all(sorted(turn) == list("abcd") for turn in turns)
    assert len(set(turns)) > 2
    assert orders[0] == orders[1] != orders[2]


def test_a_noisy_run_is_repeated_and_the_calmest_attempt_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    noisy, worse = [1.0, 2.0, 1.0, 2.0, 1.0], [1.0, 9.0, 1.0, 9.0, 1.0]
    medians = {"a": worse + noisy + worse, "b": [1.0] * 15}
    timings, _ = time_fakes(monkeypatch, medians, rounds=5, repeats=2)
    assert [len(timing.attempts) for timing in timings.values()] == [3, 3]
    assert {timing.chosen for timing in timings.values()} == {1}
    assert timings["a"].list_noise()
    assert not timings["b"].list_noise()


def test_energy_is_that_above_idle_for_a_query(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine takes 2 W at rest and 15 mJ more in each round: two timed queries after one."""
    clock = [0.0]

    class Counter:
        zones = (Path("intel-rapl:0"),)
        extra = 0.0

        def read(self) -> tuple[int, ...]:
            return (round(1e6 * (2 * clock[0] + self.extra)),)

        def subtract(self, before: tuple[int, ...], after: tuple[int, ...]) -> float:
            return (after[0] - before[0]) / 1e6

    counter = Counter()
    ask = FakeWorker.run_round

    def run_round(worker: FakeWorker) -> RoundSamples:
        clock[0] += 0.5
        counter.extra += 0.015
        return ask(worker)

    monkeypatch.setattr(measure, "open_energy_counter", lambda: counter)
    monkeypatch.setattr(measure.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(measure, "_measure_idle", lambda counter: 2.0)
    monkeypatch.setattr(FakeWorker, "run_round", run_round)
    timings, _ = time_fakes(monkeypatch, {"a": [1.0] * 5, "b": [1.0] * 5}, rounds=5, repeats=0)
    for timing in timings.values():
        assert timing.attempt.energy_mj == pytest.approx(5.0)


def test_without_a_counter_there_is_no_energy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "open_energy_counter", lambda: EnergyCounter((), "none here"))
    timings, _ = time_fakes(monkeypatch, {"a": [1.0] * 5}, rounds=5, repeats=0)
    assert timings["a"].attempt.energy_mj is None


def test_a_calm_run_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    medians = {"a": [1.0, 9.0] + [1.0] * 20}
    timings, order = time_fakes(monkeypatch, medians, rounds=20, repeats=2)
    assert len(order) == 20  # one slow round in twenty is no spread
    assert len(timings["a"].attempts) == 1


def test_a_noisy_run_is_not_repeated_beyond_the_deadline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each attempt takes 50 s: a third one would end at 150 s."""
    clock = [0.0]
    ask = FakeWorker.run_round

    def run_round(worker: FakeWorker) -> RoundSamples:
        clock[0] += 10.0
        return ask(worker)

    monkeypatch.setattr(FakeWorker, "run_round", run_round)
    monkeypatch.setattr(measure.time, "monotonic", lambda: clock[0])
    medians = {"a": [1.0, 9.0, 1.0, 9.0, 1.0] * 3}
    for deadline, attempts in ((149.0, 2), (150.0, 3)):
        clock[0] = 0.0
        timings, _ = time_fakes(monkeypatch, medians, deadline, rounds=5, repeats=2)
        assert len(timings["a"].attempts) == attempts


@pytest.mark.parametrize(
    ("slowest_ms", "threads", "cores", "images"),
    [(20.0, 1, 2, 16), (0.1, 1, 2, 64), (20.0, 2, 2, 8), (900.0, 1, 2, 2), (900.0, 1, 96, 64)],
)
def test_a_query_offline_is_as_long_as_the_slowest_engine_allows(
    monkeypatch: pytest.MonkeyPatch, slowest_ms: float, threads: int, cores: int, images: int
) -> None:
    monkeypatch.setattr(measure, "count_cores", lambda: cores)
    timings = [
        replace(make_measurement(make_attempt([ms] * 5)).single_stream, threads=threads)
        for ms in (0.05, slowest_ms)
    ]
    assert measure.size_query(timings) == images


def test_scenarios_but_single_stream_have_half_of_the_rounds_and_all_engines_one_batch(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Of 40 ms on one of two cores, eight images fit a query."""
    batches: dict[str, list[int]] = {"a": [], "b": []}
    files = {name: tmp_path / name for name in batches}

    @contextmanager
    def start(request: TimingRequest, _: Path) -> Iterator[FakeWorker]:
        name = Path(request.engine).name
        batches[name].append(request.batch)
        yield FakeWorker(name, repeat({"a": 1.0, "b": 40.0}[name]), [])

    load = json.dumps(make_measurement(make_attempt([1.0])).load.to_document())
    for name, found in (
        ("start_worker", start), ("read_busy_seconds", lambda: None), ("count_cores", lambda: 2),
        ("_run_module", lambda *_: load), ("_count_work", lambda _: None),
    ):  # fmt: skip
        monkeypatch.setattr(measure, name, found)
    for file in files.values():
        file.touch()
    images = np.zeros((1, 32, 32, 3), np.uint8)
    measured = measure_engines(files, images, BenchRule(rounds=20), NoProgress())
    assert batches == {"a": [1, 1, 8], "b": [1, 1, 8]}
    for one in measured.values():
        assert [len(timing.rounds_ms) for timing in one.timings] == [20, 10, 10]


def test_a_measuring_process_that_fails_says_why(tmp_path: Path) -> None:
    engines = {"tflite:int8": tmp_path / "missing.tflite"}
    images = np.zeros((1, 32, 32, 3), np.uint8)
    with pytest.raises(DataError) as caught:  # the file is at fault, not the machine
        measure_engines(engines, images, BenchRule(), NoProgress())
    assert f"engine file {tmp_path / 'missing.tflite'} does not exist" in str(caught.value)


@pytest.mark.parametrize("scenario", ["single_stream", "offline"])
def test_engines_are_timed_in_processes_of_their_own(
    scenario: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Real ones: each replies by its pipe alone, and all have ended afterwards."""
    started = []
    begin = subprocess.Popen

    def start(*words: Any, **options: Any) -> subprocess.Popen[str]:
        started.append(begin(*words, **options))
        return started[-1]

    monkeypatch.setattr(measure.subprocess, "Popen", start)
    files = {name: ENGINES / name for name in ("tflite_int8.tflite", "onnx_int8.onnx")}
    images = np.zeros((2, 32, 32, 3), np.uint8)
    rule = BenchRule(rounds=5, queries=2, repeats=0)
    timings = measure.time_engines(
        files, images, rule, NoProgress(), scenario=scenario, batch=2, path=True
    )
    assert list(timings) == list(files)
    for timing in timings.values():
        assert (timing.scenario, timing.batch) == (scenario, 2)
        assert [len(samples) for samples in timing.rounds_ms] == [len(timing.rounds_ms[0])] * 5
        assert min(timing.samples_ms) > 0
        assert len(timing.attempt.path_ms) == 5
        assert timing.image_size == 128
    assert len(started) == len({process.pid for process in started}) == 2
    assert [process.returncode for process in started] == [0, 0]
