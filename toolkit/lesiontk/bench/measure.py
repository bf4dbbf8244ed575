"""Measurement of engine files: latency, load time and memory in processes of their own, and size.

Latency follows the scenarios of MLPerf Inference (Reddi et al., 2020): single stream, on one thread
and on all cores, and offline. In each round every engine runs, in random order, while the others
wait, so that the machine's other load is spread over all.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, ClassVar, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from lesiontk.backends import find_backend
from lesiontk.backends.execution import Execution, find_fallback
from lesiontk.backends.foreign import ForeignDescription
from lesiontk.bench.benchmark import Benchmark, EngineRow
from lesiontk.bench.layer_profile import LayerProfile
from lesiontk.bench.load import Load
from lesiontk.bench.peak import Peak
from lesiontk.bench.pictures import describe_pictures, write_pictures
from lesiontk.bench.roofline import Work, count_work
from lesiontk.bench.speed import Speedup, estimate_speedup
from lesiontk.bench.timing import (
    MULTI_THREAD,
    OFFLINE,
    SINGLE_STREAM,
    Attempt,
    Latency,
    ScenarioTiming,
    Timing,
    summarize_path,
)
from lesiontk.bench.worker import PATH, ROUND, UNTIMED, Ready, RoundSamples, TimingRequest
from lesiontk.document import Record, write_record
from lesiontk.errors import DataError, LesionTKError, MissingRequirementError
from lesiontk.evaluate.device_gate import DeviceFigures
from lesiontk.progress import Progress
from lesiontk.recipe import BenchRule
from lesiontk.system.conditions import read_busy_seconds
from lesiontk.system.cores import count_cores
from lesiontk.system.energy import EnergyCounter, open_energy_counter

IDLE_S = 1.0
"""How long the power at rest is measured."""
OFFLINE_IMAGES = 64
"""The most images of a query offline."""
OFFLINE_MS = 250.0
"""The longest query offline, as expected of the slowest engine."""
LEAST_ROUNDS = 5
"""The fewest rounds."""
REPEAT_S = 180.0
"""No attempt is repeated that would end later than so many seconds after the benchmark began."""
STOP_S = 10.0
"""How long a measuring process may take to end."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """An engine's raw timings, single stream first, bytes of its file, and its load.

    `execution` is empty if a runtime has only one provider.
    """

    timings: tuple[Timing, ...]
    size_bytes: int
    load: Load
    deflated_bytes: int = 0
    work: Work | None = None
    profile: LayerProfile | None = None

    @property
    def single_stream(self) -> Timing:
        """Its timing one image at a time."""
        return self.timings[0]

    @property
    def samples_ms(self) -> tuple[float, ...]:
        """The raw latencies, single stream."""
        return self.single_stream.samples_ms

    @property
    def latency(self) -> Latency:
        """The percentiles of the latencies, single stream."""
        return self.single_stream.latency

    @property
    def execution(self) -> tuple[Execution, ...]:
        """What ran, by its runtime."""
        return self.single_stream.execution

    @property
    def fallback(self) -> Execution | None:
        """The runtime that ran instead of the requested one; None if that ran."""
        return find_fallback(self.execution)

    def compare_speed(
        self, parent: Measurement, confidence: float, scenario: str = SINGLE_STREAM
    ) -> Speedup | None:
        """Return the speed-up over a parent that was timed in the same rounds.

        Medians of the time for an image are compared. None if either was emulated, because its
        latency is that of another program.
        """
        if self.fallback or parent.fallback:
            return None
        mine, theirs = (
            next(t for t in measured.timings if t.scenario == scenario)
            for measured in (self, parent)
        )
        return estimate_speedup(theirs.rounds_ms, mine.rounds_ms, confidence)

    def device_figures(self) -> DeviceFigures:
        """Return the input of gates on latency, size and memory."""
        fallback = self.fallback
        emulated = (
            f"{fallback.used} ran instead of {fallback.asked}, so its latency says nothing here"
            if fallback
            else ""
        )
        return DeviceFigures(
            self.single_stream.rounds_ms, self.size_bytes, self.load.peak_bytes, emulated
        )

    def to_row(
        self,
        *,
        engine: str,
        target: str,
        backend: str,
        precision: str,
        threads: int,
        reference: bool = False,
        parent: Measurement | None = None,
        confidence: float = 0.95,
    ) -> EngineRow:
        """Return the row of a benchmark, with the speed-ups over a parent in each scenario."""
        return EngineRow(
            engine=engine,
            target=target,
            reference=reference,
            backend=backend,
            precision=precision,
            threads=threads,
            image_size=self.single_stream.image_size,
            latency_ms=self.latency,
            scenarios=tuple(self._summarize(timing, parent, confidence) for timing in self.timings),
            path=summarize_path(self.single_stream.attempt, describe_pictures()),
            load=self.load,
            work=self.work,
            profile=self.profile,
            size_bytes=self.size_bytes,
            deflated_bytes=self.deflated_bytes,
            peak_memory_bytes=self.load.peak_bytes,
            execution=self.execution,
        )

    def _summarize(
        self, timing: Timing, parent: Measurement | None, confidence: float
    ) -> ScenarioTiming:
        speedup = (
            self.compare_speed(parent, confidence, timing.scenario) if parent is not None else None
        )
        latency, attempt = timing.latency, timing.attempt
        return ScenarioTiming(
            scenario=timing.scenario,
            threads=timing.threads,
            streams=timing.streams,
            batch=timing.batch,
            latency_ms=latency,
            images_per_second=1000 * timing.batch / latency.median,
            rounds=len(timing.rounds_ms),
            warmup=timing.warmup,
            spread=attempt.spread,
            others_load=attempt.others_load,
            attempts=len(timing.attempts),
            noise=timing.list_noise(),
            energy_mj=None if attempt.energy_mj is None else attempt.energy_mj / timing.batch,
            speedup=speedup.value if speedup else None,
            speedup_interval=speedup.interval if speedup else None,
        )


@dataclass(frozen=True, slots=True)
class LatencySamples(Record):
    """The raw timings of a benchmark: engine -> its scenarios, single stream first."""

    SCHEMA: ClassVar[int] = Benchmark.SCHEMA

    engines: Mapping[str, tuple[Timing, ...]]


def deflated_bytes(path: Path) -> int:
    """Return the size of a file after zip compression, as for a download."""
    return len(zlib.compress(path.read_bytes(), 6))


def measure_engines(
    engines: Mapping[str, Path],
    images: NDArray[np.uint8],
    rule: BenchRule,
    progress: Progress,
    foreign: ForeignDescription | None = None,
) -> dict[str, Measurement]:
    """Return engine name -> measurement; `images` uint8 [N, S, S, 3], of any size.

    `foreign` describes the files without a description. Left out are all cores where `rule.threads`
    are as many, and all but the first scenario for emulated engines, whose latency is not theirs.
    """
    deadline = time.monotonic() + REPEAT_S
    others = [name for name in rule.scenarios if name != SINGLE_STREAM]
    if count_cores() == rule.threads:
        others = [name for name in others if name != MULTI_THREAD]
    first = time_engines(engines, images, rule, progress, foreign, deadline=deadline, path=True)
    timed = {name: [timing] for name, timing in first.items()}
    real = {name: engines[name] for name in engines if not find_fallback(first[name].execution)}
    for scenario in others if real else ():
        found = time_engines(
            real,
            images,
            rule,
            progress,
            foreign,
            scenario=scenario,
            batch=size_query([first[name] for name in real]) if scenario == OFFLINE else 1,
            deadline=deadline,
        )
        for name, timing in found.items():
            timed[name].append(timing)
    described = [] if foreign is None else [json.dumps(foreign.to_document())]
    loads = {}
    with progress.task("measuring memory", len(engines)) as advance:
        for name, path in engines.items():
            said = _run_module("lesiontk.bench.load", str(path), rule.provider or "", *described)
            loads[name] = Load.from_document(json.loads(said.splitlines()[-1]))
            advance(1)
    work = {name: _count_work(path) for name, path in engines.items()}
    profiles = measure_profiles(real, rule, progress) if rule.per_layer else {}
    return {
        name: Measurement(
            tuple(timed[name]),
            path.stat().st_size,
            loads[name],
            deflated_bytes(path),
            work[name],
            profiles.get(name),
        )
        for name, path in engines.items()
    }


def size_query(timings: Sequence[Timing]) -> int:
    """Return the images of a query offline, the same for all engines with these single streams.

    It is the power of two that the slowest engine, on all cores, should run in `OFFLINE_MS`: at
    least an image for each core, at most `OFFLINE_IMAGES`.
    """
    cores = count_cores()
    image_ms = max(one.latency.median * min(1.0, one.threads / cores) for one in timings)
    fitting = 1 << max(0, math.floor(math.log2(OFFLINE_MS / image_ms)))
    return min(OFFLINE_IMAGES, max(cores, fitting))


def _count_work(path: Path) -> Work | None:
    """Return the work of an engine; None if unknown, as for a file of other tools."""
    try:
        return count_work(path, find_backend(path)().read_spec(path).precision)
    except DataError:
        return None


def measure_profiles(
    engines: Mapping[str, Path], rule: BenchRule, progress: Progress
) -> dict[str, LayerProfile]:
    """Return engine name -> its layers, the slowest first; without files of other tools, and back
    ends that have no profile.

    Each is measured in a process of its own, in `rule.rounds` rounds on `rule.threads` threads.
    """
    found = {}
    with progress.task("timing layers", len(engines)) as advance:
        for name, path in engines.items():
            backend = find_backend(path)
            if backend.info.profiles and backend().carries_description(path):
                found[name] = replace(measure_profile(path, rule.rounds, rule.threads), engine=name)
            advance(1)
    return found


def measure_profile(path: Path, rounds: int, threads: int) -> LayerProfile:
    """Return the layers of an engine file, the slowest first, measured in a process of its own.

    Raises as `lesiontk.bench.layer_profile.profile_engine`.
    """
    said = _run_module("lesiontk.bench.layer_profile", str(path), str(rounds), str(threads))
    return LayerProfile.from_document(json.loads(said.splitlines()[-1]))


def measure_peaks(threads: int) -> tuple[Peak, ...]:
    """Return the peak of this machine on `threads` threads and on all cores."""
    found = []
    for count in dict.fromkeys((threads, count_cores())):
        said = _run_module("lesiontk.bench.peak", str(count))
        found.append(Peak.from_document(json.loads(said.splitlines()[-1])))
    return tuple(found)


def time_engines(
    engines: Mapping[str, Path],
    images: NDArray[np.uint8],
    rule: BenchRule,
    progress: Progress,
    foreign: ForeignDescription | None = None,
    *,
    scenario: str = SINGLE_STREAM,
    batch: int = 1,
    deadline: float = math.inf,
    path: bool = False,
) -> dict[str, Timing]:
    """Return engine name -> its latencies in a scenario; `images` as for `measure_engines`.

    A query is `batch` images at once. Scenarios but single stream, which gates are decided on, have
    half of the rounds. With `path`, the path from JPEG file to answer is timed, too.

    A noisy measurement of all engines is repeated up to `rule.repeats` times, while another attempt
    is expected to end before `deadline`, seconds of the monotonic clock. The calmest one counts:
    that with the fewest noisy engines, and of these with the least spread.
    """
    single = scenario == SINGLE_STREAM
    rounds = rule.rounds if single else max(LEAST_ROUNDS, rule.rounds // 2)
    total = rounds * (1 + rule.repeats)
    with (
        tempfile.TemporaryDirectory() as folder,
        progress.task(f"timing, {scenario.replace('_', ' ')}", total) as advance,
        ExitStack() as stack,
    ):
        array = Path(folder) / "images.npy"
        np.save(array, images)
        pictures = write_pictures(images, Path(folder)) if path else ()
        workers = []
        for number, file in enumerate(engines.values()):
            request = TimingRequest(
                engine=str(file),
                images=str(array),
                scenario=scenario,
                threads=rule.threads if single else count_cores(),
                batch=batch,
                foreign=foreign,
                pictures=pictures,
                **rule.model_dump(include={"queries", "warmup", "provider"}),
            )
            workers.append(
                stack.enter_context(start_worker(request, Path(folder) / f"{number}.json"))
            )
        ready = [worker.wait_ready() for worker in workers]
        attempts: list[list[Attempt]] = []
        while len(attempts) <= rule.repeats:
            order, begin = np.random.default_rng([rule.seed, len(attempts)]), time.monotonic()
            attempts.append(_run_rounds(workers, rounds, order, lambda: advance(1), path=path))
            end = time.monotonic()
            calm = not any(attempt.list_noise() for attempt in attempts[-1])
            if calm or end + (end - begin) > deadline:
                break
        advance(total - rounds * len(attempts))
    chosen = min(range(len(attempts)), key=lambda number: _rank_noise(attempts[number]))
    return {
        name: _timing_from(ready[row], scenario, [found[row] for found in attempts], chosen)
        for row, name in enumerate(engines)
    }


def _rank_noise(attempts: Sequence[Attempt]) -> tuple[int, float]:
    return (
        sum(bool(attempt.list_noise()) for attempt in attempts),
        sum(attempt.spread for attempt in attempts),
    )


def _timing_from(ready: Ready, scenario: str, attempts: list[Attempt], chosen: int) -> Timing:
    values = ready.field_values()
    del values["queries"]
    return Timing(scenario=scenario, attempts=tuple(attempts), chosen=chosen, **values)


def _run_rounds(
    workers: Sequence[WorkerProcess],
    rounds: int,
    order: np.random.Generator,
    advance: Callable[[], object],
    *,
    path: bool,
) -> list[Attempt]:
    """Return the samples of each worker; in each round they take turns in random order."""
    samples: list[list[RoundSamples]] = [[] for _ in workers]
    pictures: list[list[RoundSamples]] = [[] for _ in workers]
    energy = [0.0] * len(workers)
    counter = open_energy_counter()
    idle_w = _measure_idle(counter) if counter.zones else 0.0
    busy, start, own = read_busy_seconds(), time.monotonic(), time.process_time()
    for _ in range(rounds):
        for number in order.permutation(len(workers)):
            before, begin = counter.read(), time.monotonic()
            samples[number].append(workers[number].run_round())
            elapsed = time.monotonic() - begin
            energy[number] += counter.subtract(before, counter.read()) - idle_w * elapsed
            if path:
                pictures[number].append(workers[number].run_path())
        advance()
    after = read_busy_seconds()
    others = None
    if busy is not None and after is not None:
        mine = sum(one.cpu_s for found in (*samples, *pictures) for one in found)
        mine += time.process_time() - own
        seconds = (os.cpu_count() or 1) * (time.monotonic() - start)
        others = min(1.0, max(0.0, (after - busy - mine) / seconds))
    return [
        Attempt(
            rounds_ms=tuple(tuple(ms for (ms,) in one.samples_ms) for one in found),
            path_ms=tuple(one.samples_ms for one in pictures[number]),
            others_load=others,
            energy_mj=1000 * energy[number] / sum(UNTIMED + len(one.samples_ms) for one in found)
            if counter.zones
            else None,
        )
        for number, found in enumerate(samples)
    ]


def _measure_idle(counter: EnergyCounter) -> float:
    """Return the power in watts while no engine runs."""
    before, start = counter.read(), time.monotonic()
    time.sleep(IDLE_S)
    return counter.subtract(before, counter.read()) / (time.monotonic() - start)


class WorkerProcess(Protocol):
    """A process of `lesiontk.bench.worker`."""

    def wait_ready(self) -> Ready:
        """Return what runs after the warm-up."""
        ...

    def run_round(self) -> RoundSamples:
        """Return the samples of the next round."""
        ...

    def run_path(self) -> RoundSamples:
        """Return the samples of the path from file to answer."""
        ...


class _Process:
    def __init__(
        self, process: subprocess.Popen[str], commands: IO[str], replies: IO[str], errors: Path
    ) -> None:
        self._process, self._errors = process, errors
        self._commands, self._replies = commands, replies

    def wait_ready(self) -> Ready:
        return Ready.from_document(self._read())

    def run_round(self) -> RoundSamples:
        return self._ask(ROUND)

    def run_path(self) -> RoundSamples:
        return self._ask(PATH)

    def _ask(self, command: str) -> RoundSamples:
        with suppress(BrokenPipeError):  # then there is no reply
            print(command, file=self._commands, flush=True)
        return RoundSamples.from_document(self._read())

    def _read(self) -> Any:
        line = self._replies.readline()
        if not line:
            raise explain_end(
                "lesiontk.bench.worker", self._process.wait(), self._errors.read_text()
            )
        return json.loads(line)


@contextmanager
def start_worker(request: TimingRequest, file: Path) -> Iterator[WorkerProcess]:
    """Yield a process that times an engine; it ends afterwards. `file` is written."""
    write_record(file, request)
    errors = file.with_suffix(".err")
    with errors.open("w") as stream:
        process = subprocess.Popen(
            _command("lesiontk.bench.worker", str(file)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stream,
            text=True,
        )
    commands, replies = cast(IO[str], process.stdin), cast(IO[str], process.stdout)
    try:
        yield _Process(process, commands, replies, errors)
    finally:
        with suppress(BrokenPipeError):
            commands.close()
        replies.close()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _run_module(module: str, *arguments: str) -> str:
    done = subprocess.run(_command(module, *arguments), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise explain_end(module, done.returncode, done.stderr)
    return done.stdout


def _command(module: str, *arguments: str) -> list[str]:
    return [sys.executable, "-W", "ignore", "-m", module, *arguments]


def explain_end(module: str, code: int, errors: str) -> LesionTKError:
    """Return the error of a measuring process that ended with `code`."""
    last = (errors.strip().splitlines() or ["no message"])[-1]
    if code == DataError.exit_code:
        return DataError(last)
    return MissingRequirementError(
        f"the measuring process {module} ended with exit code {code}: {last}"
    )
