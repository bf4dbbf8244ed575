"""A worker warms its engine up until it is stable, then times queries, streams and pictures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray

from lesiontk import backends
from lesiontk.backends.backend import Engine
from lesiontk.backends.execution import Execution
from lesiontk.bench import worker
from lesiontk.bench.pictures import write_pictures
from lesiontk.bench.worker import TimingRequest, Worker
from lesiontk.records import EngineSpec, Preprocessing

SPEC = EngineSpec(
    backend="fake",
    precision="float32",
    labels=("benign", "malignant"),
    preprocessing=Preprocessing(image_size=8, crop_mode="crop"),
    task="malignancy",
    recipe="fake",
    split_hash="",
)


class FakeEngine(Engine):
    """Notes the sizes of its batches and returns equal probabilities."""

    opened: ClassVar[list[FakeEngine]] = []

    def __init__(self, threads: int) -> None:
        super().__init__(SPEC)
        self.threads, self.sizes = threads, list[int]()
        self.opened.append(self)

    def _infer(self, images: NDArray[np.uint8]) -> NDArray[Any]:
        self.sizes.append(len(images))
        return np.full((len(images), 2), 0.5, np.float32)

    def describe_execution(self) -> tuple[Execution, ...]:
        return ()

    def close(self) -> None:
        self.sizes.append(-1)


class Batching(FakeEngine):
    """Runs several images at once."""

    batches = True


@pytest.fixture(autouse=True)
def engines(monkeypatch: pytest.MonkeyPatch) -> list[FakeEngine]:
    FakeEngine.opened = []
    kinds = {"fake": FakeEngine, "batching": Batching}
    monkeypatch.setattr(
        backends, "open_any", lambda path, foreign, threads, provider: kinds[path.name](threads)
    )
    return FakeEngine.opened


def make_request(tmp_path: Path, **changes: Any) -> TimingRequest:
    images = tmp_path / "images.npy"
    np.save(images, np.zeros((3, 8, 8, 3), np.uint8))
    known: dict[str, Any] = {
        "engine": "fake", "images": str(images), "scenario": "single_stream", "threads": 2,
        "queries": 5, "warmup": 10,
    }  # fmt: skip
    return TimingRequest(**{**known, **changes})


def follow(monkeypatch: pytest.MonkeyPatch, latencies: list[float]) -> list[float]:
    """Let queries take these ms, the last one for ever; return what is left of them."""
    left = list(latencies)
    monkeypatch.setattr(Worker, "_query", lambda self: left.pop(0) if len(left) > 1 else left[0])
    return left


def test_the_warm_up_ends_when_three_windows_are_equal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    follow(monkeypatch, [9.0] * 10 + [5.0] * 10 + [3.0] * 10 + [2.0])
    with Worker(make_request(tmp_path)) as found:
        assert (found.ready.warmup, found.ready.warmed_up) == (60, True)


def test_an_engine_that_does_not_become_stable_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The twin: each window is slower than the one before, until the time is over."""
    follow(monkeypatch, [1.1**window for window in range(400) for _ in range(10)])
    times = iter(range(100))
    monkeypatch.setattr(worker.time, "monotonic", lambda: float(next(times)))
    with Worker(make_request(tmp_path)) as found:
        assert not found.ready.warmed_up
        assert found.ready.warmup == 10 * worker.WARMUP_S


@pytest.mark.parametrize(("ms", "queries"), [(1.0, 5), (200.0, 2), (900.0, 1)])
def test_a_slow_engine_has_fewer_queries_in_a_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ms: float, queries: int
) -> None:
    follow(monkeypatch, [ms])
    with Worker(make_request(tmp_path)) as found:
        assert found.ready.queries == queries
        assert found.run_round().samples_ms == ((ms,),) * queries


def test_single_stream_is_one_image_at_a_time(tmp_path: Path, engines: list[FakeEngine]) -> None:
    with Worker(make_request(tmp_path)) as found:
        engines[0].sizes.clear()
        samples = found.run_round()
    (engine,) = engines
    assert engine.sizes == [1] * (1 + 5) + [-1]  # the first is not timed
    assert engine.threads == 2
    assert len(samples.samples_ms) == 5
    assert min(samples.samples_ms) > (0,)


def test_offline_shares_a_query_among_engines_of_one_thread(
    tmp_path: Path, engines: list[FakeEngine]
) -> None:
    with Worker(make_request(tmp_path, scenario="offline", threads=3, batch=16)) as found:
        assert (found.ready.streams, found.ready.threads) == (3, 1)
        assert found.ready.batch == 16
        for engine in engines:
            engine.sizes.clear()
        found.run_round()
    assert [engine.threads for engine in engines] == [1, 1, 1]
    shares = [sum(engine.sizes[:-1]) for engine in engines]
    assert sum(shares) == (1 + 5) * 16
    assert max(shares) - min(shares) <= 1 + 5


def test_offline_an_engine_with_batches_gets_the_whole_query_and_all_threads(
    tmp_path: Path, engines: list[FakeEngine]
) -> None:
    request = make_request(tmp_path, engine="batching", scenario="offline", threads=3, batch=16)
    with Worker(request) as found:
        assert (found.ready.streams, found.ready.threads) == (1, 3)
        found.run_round()
    assert engines[-1].threads == 3
    assert engines[-1].sizes[-2] == 16


def test_the_path_is_timed_from_a_file_to_the_answer(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), np.uint8)
    pictures = write_pictures(images, tmp_path)
    with Worker(make_request(tmp_path, pictures=pictures)) as found:
        samples = found.run_path().samples_ms
    assert len(samples) == 2
    for *parts, whole in samples:
        assert min(parts) > 0
        assert whole >= sum(parts)


def test_each_round_times_the_next_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    with Worker(make_request(tmp_path)) as found:
        found.ready = replace(found.ready, queries=2)
        monkeypatch.setattr(found, "_request", replace(found._request, pictures=tuple("abcde")))
        monkeypatch.setattr(
            found, "_time_path", lambda picture: seen.append(picture.name) or (1.0, 1.0)
        )
        for _ in range(3):
            found.run_path()
    assert seen == ["a", "b", "c", "d", "e", "a"]
