"""Candidates share what they have in common, are chosen on validation, and read test once."""

from __future__ import annotations

import fcntl
import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from sqlalchemy.exc import OperationalError

from lesiontk.bench import timing
from lesiontk.errors import GateFailedError, MissingRequirementError, UsageError
from lesiontk.recipe.gate_grammar import Gate
from lesiontk.records import Artefact
from lesiontk.search.criteria import Figures
from lesiontk.search.result import SearchResult, find_best
from lesiontk.search.space import SearchSpace, parse_space
from lesiontk.search.study import RunningTrial
from lesiontk.search.trial_record import COMPLETE, FAILED, PRUNED
from lesiontk.stage import BuildObserver, StepId, StoppedError
from lesiontk.stages import STAGES
from lesiontk.stages.time_engine import TimeStage
from lesiontk.store import Store
from lesiontk.tracking import TrackedRun
from lesiontk.workflow import search as search_module
from lesiontk.workflow import search_trials
from lesiontk.workflow.bundle import bundle_reference
from lesiontk.workflow.executor import DEVICE_LOCK, WorkerOptions
from lesiontk.workflow.search import Search, open_search, prepare_search, run_search
from lesiontk.workflow.search_candidates import SearchOptions
from lesiontk.workflow.search_trials import Trials
from tests.tiny.recipe import TINY

LENIENT = {"verify.min_agreement_int8": 0.0, "verify.max_mean_drift_int8": 1.0}


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("recipe") / "tiny.yaml"
    file.write_text(yaml.safe_dump({**json.loads(json.dumps(TINY)), "gate": []}))
    return file


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each stage did its work."""
    return count_runs(monkeypatch)


def count_runs(patch: pytest.MonkeyPatch) -> Counter[str]:
    found: Counter[str] = Counter()
    make = Store._make

    def counted(self: Store, stage: Any, *rest: Any) -> Artefact:
        found[stage.info.name] += 1
        return make(self, stage, *rest)

    patch.setattr(Store, "_make", counted)
    return found


def make_space(recipe: Path, vary: dict[str, Any], **keys: Any) -> SearchSpace:
    shared = {**LENIENT, **keys.pop("set", {})}
    return parse_space({"recipe": str(recipe), "vary": vary, "set": shared, **keys})


def prepare(store: Store, space: SearchSpace, name: str) -> Search:
    search = prepare_search(store, space, SearchOptions(name))
    search.build_split()
    return search


GRID: dict[str, Any] = {
    "vary": {
        "calibration.observer": ["min_max", "percentile"],
        "quantize.correct_bias": [True, False],
    },
    "set": {"train.seed": 77},
    "sampler": "grid",
    "objectives": ["balanced_accuracy", "log_loss"],
    "constraints": ["size_mb <= 1", "sensitivity[malignant] >= parent - 1"],
}


class Recorded(BuildObserver):
    """Keeps the runs that are no artefacts."""

    def __init__(self) -> None:
        self.runs: list[TrackedRun] = []

    def record(self, run: TrackedRun) -> None:
        self.runs.append(run)


@pytest.fixture(scope="module")
def grid(tiny_store: Store, recipe: Path) -> Iterator[tuple[Search, Counter[str], SearchResult]]:
    """Four int8 engines of one network that no other test trains."""
    with pytest.MonkeyPatch.context() as patch:
        runs = count_runs(patch)
        tiny_store.observer = Recorded()
        search = prepare(tiny_store, make_space(recipe, **GRID), "grid")
        search.run()
        before = Counter(runs)
        yield search, before, search.results.finish()


def test_trials_share_what_they_have_in_common(
    grid: tuple[Search, Counter[str], SearchResult],
) -> None:
    """One training, one float engine; one calibration and one set of ranges an observer."""
    _, runs, _ = grid
    assert {name: runs[name] for name in ("train", "calibrate", "ranges", "convert", "time")} == {
        "train": 1, "calibrate": 2, "ranges": 2, "convert": 1 + 4, "time": 4,
    }  # fmt: skip
    assert runs["validate"] == 1 + 4


def test_a_tracker_gets_each_trial_when_it_ends_and_the_search_when_it_does(
    grid: tuple[Search, Counter[str], SearchResult],
) -> None:
    observer = grid[0].store.observer
    assert isinstance(observer, Recorded)
    live = [(run.tags["lesiontk.kind"], run.state.value) for run in observer.runs[:8]]
    assert live == [("search", "running"), ("trial", "finished")] * 4
    assert len({run.key for run in observer.runs}) == 1 + 4
    whole = next(run for run in observer.runs if run.state.value == "finished"
                 and run.tags["lesiontk.kind"] == "search")  # fmt: skip
    assert sum(whole.metrics.values()) == 4


def test_no_trial_reads_the_test_images(
    grid: tuple[Search, Counter[str], SearchResult],
) -> None:
    _, runs, result = grid
    assert runs["evaluate"] == 0
    (reading,) = result.readings
    assert set(reading.engines) == {result.figures(number).engine for number in result.front}
    assert set(result.tests) == set(reading.engines)
    assert reading.candidates == result.candidates == len({t.figures.engine for t in result.trials
                                                           if t.figures})  # fmt: skip
    assert all(tested.n for tested in result.tests.values())


def test_the_choice_is_corrected_for_the_number_of_candidates(
    grid: tuple[Search, Counter[str], SearchResult],
) -> None:
    _, _, result = grid
    assert [winner.metric for winner in result.winners] == ["balanced_accuracy", "log_loss"]
    for winner in result.winners:
        assert winner.candidates == result.candidates
        values = [t.figures.value(winner.metric) for t in result.trials if t.figures]
        assert winner.measured == pytest.approx((min if winner.lower_is_better else max)(values))


def test_a_finished_search_does_nothing_again(
    grid: tuple[Search, Counter[str], SearchResult], recipe: Path, runs: Counter[str]
) -> None:
    search, _, result = grid
    again = prepare(search.store, make_space(recipe, **GRID), "grid")
    again.run()
    assert again.results.finish() == result
    assert open_search(search.store, None).results.collect() == result
    assert not runs


def test_another_split_cannot_continue_a_search(
    grid: tuple[Search, Counter[str], SearchResult], recipe: Path, tmp_path: Path
) -> None:
    other = tmp_path / "tiny.yaml"
    document = yaml.safe_load(recipe.read_text())
    document["data"]["split"] = {"seed": 99}
    other.write_text(yaml.safe_dump(document))
    with pytest.raises(UsageError, match=r"another space \(recipe differ\)"):
        prepare(grid[0].store, make_space(other, **GRID), "grid")
    recipe_before = recipe.read_text()
    try:
        recipe.write_text(yaml.safe_dump(document))
        with pytest.raises(UsageError, match="with another split of the images"):
            prepare(grid[0].store, make_space(recipe, **GRID), "grid")
    finally:
        recipe.write_text(recipe_before)


def test_the_best_engine_goes_into_a_bundle(
    grid: tuple[Search, Counter[str], SearchResult], tmp_path: Path
) -> None:
    search, _, result = grid
    trial = find_best(result, ["size_mb <= 0.9"])
    assert trial.figures is not None
    folder, facts = bundle_reference(
        search.store, trial.figures.engine, "linux-arm64", tmp_path / "board",
        research_override=True,
    )  # fmt: skip
    assert (folder / "run.py").is_file()
    assert facts.engine == "tflite:int8"


def test_more_trials_after_the_test_was_read_are_a_second_reading(
    tiny_store: Store, recipe: Path, caplog: pytest.LogCaptureFixture
) -> None:
    vary = {"target": ["tflite:float16", "tflite:int8"]}
    keys: dict[str, Any] = {"sampler": "grid", "objectives": ["size_mb"]}
    first = prepare(tiny_store, make_space(recipe, vary, trials=1, **keys), "longer")
    first.run()
    (reading,) = first.results.finish().readings
    assert (reading.candidates, len(reading.engines)) == (1, 1)
    longer = prepare(tiny_store, make_space(recipe, vary, trials=2, **keys), "longer")
    longer.run()
    found = longer.results.finish()
    assert [reading.candidates for reading in found.readings] == [1, 2]
    assert "the test images were read before, after 1 candidates" in caplog.text
    assert set(found.tests) == {engine for r in found.readings for engine in r.engines}


def test_a_killed_trial_is_continued_and_its_work_is_kept(
    tiny_store: Store, recipe: Path, runs: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process ends between the measurements of a trial and their record."""
    space = make_space(recipe, {"quantize.correct_bias": [True, False]}, trials=1, seed=5)

    class Killed(BaseException):
        pass

    def die(*_: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(RunningTrial, "complete", die)
        with pytest.raises(Killed):
            prepare(tiny_store, space, "killed").run()
    done = Counter(runs)
    search = prepare(tiny_store, space, "killed")
    search.run()
    (trial,) = search.study.list_trials()
    assert trial.state == COMPLETE
    assert runs == done


def test_a_candidate_without_an_engine_does_not_end_the_search(
    tiny_store: Store, recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = make_space(recipe, {"calibration.observer": ["min_max", "percentile"]}, sampler="grid")
    search = prepare(tiny_store, space, "failing")
    build = search_trials.build_step

    def fail_once(plan: Any, *rest: Any, **options: Any) -> Artefact:
        if plan.recipe.calibration.observer == "min_max":
            raise GateFailedError("tflite:int8 does not match its model.")
        return build(plan, *rest, **options)

    monkeypatch.setattr(search_trials, "build_step", fail_once)
    search.run()
    assert [(t.state, t.reason) for t in search.study.list_trials()] == [
        (FAILED, "tflite:int8 does not match its model."), (COMPLETE, ""),
    ]  # fmt: skip


def test_a_candidate_without_the_figure_of_a_criterion_does_not_end_the_search(
    tiny_store: Store, recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as a percentile of too few timings, which is known once the engine was timed."""
    space = make_space(
        recipe, {"calibration.observer": ["min_max", "percentile"]}, sampler="grid",
        objectives=["p90_ms"],
    )  # fmt: skip
    search = prepare(tiny_store, space, "undefined")
    measure = Trials._measure

    def without_percentile(self: Trials, trial: RunningTrial, store: Store) -> Figures:
        found = measure(self, trial, store)
        known = {k: v for k, v in found.values.items() if k != "p90_ms" or trial.number}
        return replace(found, values=known)

    monkeypatch.setattr(Trials, "_measure", without_percentile)
    search.run()
    first, second = search.study.list_trials()
    assert (first.state, second.state) == (FAILED, COMPLETE)
    assert "timings are too few for a percentile" in first.reason


def test_a_missing_program_and_a_process_that_ends_again_and_again_fail_their_trial(
    tiny_store: Store, recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = make_space(recipe, {"calibration.observer": ["min_max", "percentile"]}, sampler="grid")
    build, interrupts = search_trials.build_step, [KeyboardInterrupt] * 4

    def end(plan: Any, step: StepId, *rest: Any, **options: Any) -> Artefact:
        if plan.recipe.calibration.observer == "percentile":
            raise MissingRequirementError("an emulator is missing.")
        if step.kind == "engine":
            raise interrupts.pop() if interrupts else MemoryError
        return build(plan, step, *rest, **options)

    search = prepare(tiny_store, space, "ending")
    monkeypatch.setattr(search_trials, "build_step", end)
    for error in [KeyboardInterrupt] * 4 + [MemoryError] * 3:
        with pytest.raises(error):
            search.run()
    search.run()
    first, second = search.study.list_trials()
    assert (first.state, second.state) == (FAILED, FAILED)
    assert first.reason.startswith("3 processes ended in the step engine:tflite:int8, as by")
    assert second.reason == "an emulator is missing."


def test_a_test_figure_is_of_the_metric_it_is_named_for(
    grid: tuple[Search, Counter[str], SearchResult],
) -> None:
    """An evaluation has the sensitivity at the engine's own threshold, not at another one."""
    search, _, result = grid
    names = ("auc[malignant]", "sensitivity_at_parent_specificity[malignant]")
    other = Search(search.store, search.space, search.options, search.task, "youden")
    other.study = search.study
    other.candidates.criteria = replace(
        search.criteria, constraints=tuple(Gate(name, 0.1, relative=True) for name in names)
    )
    found = other.results._read_tests(set(result.tests))
    assert found
    for figures in found.values():
        assert set(figures.metrics) == {"balanced_accuracy", "log_loss", "auc[malignant]"}


def test_the_last_search_is_that_which_was_written_last(store: Store) -> None:
    """SQLite writes to the log beside the database first."""
    for name, times in (("older", {"": 100, "-wal": 400}), ("newer", {"": 300, "-wal": 300})):
        folder = search_module.search_folder(store, name)
        folder.mkdir(parents=True)
        for ending, time in times.items():
            (folder / f"study.db{ending}").touch()
            os.utime(folder / f"study.db{ending}", (time, time))
    assert search_module._find_last(store) == "older"


def test_a_training_that_falls_behind_is_ended_and_can_go_on(
    tiny_store: Store, recipe: Path, runs: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    space = make_space(
        recipe, {"train.learning_rate": [1e-5, 2e-5]}, pruner="hyperband", sampler="grid",
        set={"train.epochs": 2},
    )  # fmt: skip
    reports: list[int] = []

    def behind(self: RunningTrial, epoch: int, value: float) -> bool:
        reports.append(epoch)
        return self.number == 0

    monkeypatch.setattr(RunningTrial, "report", behind)
    search = prepare(tiny_store, space, "pruned")
    search.run()
    assert [trial.state for trial in search.study.list_trials()] == [PRUNED, COMPLETE]
    assert reports == [1, 1, 2]
    assert not tiny_store.failures()
    epochs: list[int] = []
    plan = search.candidates.plan_of({"train.learning_rate": 1e-5})
    store = tiny_store.observed_by(lambda epoch, _: epochs.append(epoch))
    search_trials.build_step(plan, "model", store, {})
    assert epochs == [2]


def test_an_observer_may_end_a_training(tiny_store: Store, recipe: Path) -> None:
    space = make_space(recipe, {"train.learning_rate": [3e-5]})

    def stop(epoch: int, metrics: Any) -> None:
        raise StoppedError(f"epoch {epoch}: {sorted(metrics)[0]}")

    search = prepare(tiny_store, space, "observed")
    plan = search.candidates.plan_of({"train.learning_rate": 3e-5})
    with pytest.raises(StoppedError, match="epoch 1: accuracy"):
        search_trials.build_step(plan, "model", tiny_store.observed_by(stop), {})


@pytest.mark.parametrize(
    ("vary", "keys", "message"),
    [
        ({"calibration.observer": ["min_max", "percentil"]}, {}, "Did you mean 'percentile'"),
        ({"train.epochs": [1, 0]}, {}, r"train.epochs: 0 is not possible"),
        ({"target": ["tflite:int8", "keras:int8"]}, {}, "keras"),
        ({"compress": [[], [{"prune": {}}]]}, {}, r"compress: prune is not possible"),
        (
            {"train.epochs": [1, 2]},
            {"constraints": ["recall[melanoma] >= 0.5"]},
            "task seven_class",
        ),
        (
            {"target": ["tflite:int8", "keras:float32"]},
            {"constraints": ["recall[mel] >= parent - 0.03"]},
            r"target: keras:float32 is not possible: .* compares with a parent",
        ),
        ({"recipe": ["demo", "vgg16_binary"]}, {}, "differ in data"),
        ({"train.epochs": [1, 2]}, {"objectives": ["p99_ms"]}, "Did you mean 'p90_ms'"),
    ],
)
def test_what_cannot_be_searched_is_refused_before_any_work(
    store: Store, recipe: Path, vary: dict[str, Any], keys: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        prepare(store, make_space(recipe, vary, **keys), "refused")
    assert store.list_names() == []


def test_names_of_searches(store: Store, recipe: Path) -> None:
    space = make_space(recipe, {"train.epochs": [1, 2]})
    with pytest.raises(UsageError, match="expected up to 64 lower-case letters"):
        prepare(store, space, "../elsewhere")
    with pytest.raises(UsageError, match=r"no search in .*`lesiontk search init`"):
        open_search(store, None)
    with pytest.raises(UsageError, match="no search 'other'"):
        open_search(store, "other")
    with pytest.raises(UsageError, match="expected a name"):
        run_search(store, {"vary": {"train.epochs": [1, 2]}})


def test_a_database_that_fails_during_a_search_is_no_bug(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lose(*_: object) -> None:
        raise OperationalError("UPDATE", {}, Exception("database or disk is full"))

    monkeypatch.setattr(search_module, "prepare_search", lose)
    with pytest.raises(MissingRequirementError, match="failed during the search: database or disk"):
        run_search(store, {"vary": {"train.epochs": [1, 2]}}, name="lost")


def test_a_bad_space_is_found_before_workers_start(
    store: Store, recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(search_module, "open_executor", start)
    space = {"recipe": str(recipe), "vary": {"train.batch_size": [8, -1]}}
    with pytest.raises(UsageError, match=r"train.batch_size: -1 is not possible"):
        run_search(store, space, name="bad", workers=WorkerOptions("ray"))


def test_one_engine_is_timed_at_a_time(
    grid: tuple[Search, Counter[str], SearchResult], recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process that would time an engine meanwhile waits for the lock."""
    held: list[bool] = []
    run = TimeStage.run

    def watched(self: TimeStage, *rest: Any) -> Any:
        with (grid[0].store.workspace / ".locks" / DEVICE_LOCK).open() as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                held.append(True)
        return run(self, *rest)

    monkeypatch.setattr(TimeStage, "run", watched)
    space = make_space(
        recipe, {"quantize.correct_bias": [True]}, set={"bench.rounds": 21}, trials=1
    )
    prepare(grid[0].store, space, "timed").run()
    assert held == [True]


def test_a_busy_machine_is_recorded_with_the_latency(
    grid: tuple[Search, Counter[str], SearchResult], recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timing, "OTHERS_LIMIT", -1.0)
    space = make_space(
        recipe, {"quantize.correct_bias": [True]}, set={"bench.rounds": 22}, trials=1
    )
    search = prepare(grid[0].store, space, "busy")
    search.run()
    (trial,) = search.study.list_trials()
    assert trial.figures is not None
    assert "other programs used" in " ".join(trial.figures.noise)


def test_every_stage_of_a_trial_is_registered() -> None:
    assert {"validate", "time"} <= set(STAGES)
