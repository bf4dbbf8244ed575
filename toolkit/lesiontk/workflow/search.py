"""A search: candidates of a space, each an ordinary plan over the ordinary store.

Candidates are compared on validation images. The test images are read at the end, by the engines of
the front alone.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lesiontk.backends import BACKENDS, parse_target
from lesiontk.bench.benchmark import FULL_PRECISION
from lesiontk.data.tasks import load_task
from lesiontk.document import plain_value, write_record
from lesiontk.errors import (
    DataError,
    LesionTKError,
    UsageError,
    show_value,
)
from lesiontk.files.strict_json import read_json
from lesiontk.recipe import Recipe, name_from_path, override_document
from lesiontk.recipe.gate_grammar import AT_PARENT_SPECIFICITY, Gate, is_of_positive
from lesiontk.records import Artefact
from lesiontk.report.render import shorten_paths
from lesiontk.search.criteria import Criteria, Figures, explain_no_parent
from lesiontk.search.result import (
    SearchResult,
    SearchTask,
    TestEstimate,
    TestFigures,
    TestReading,
    is_measured_on_validation,
    list_front,
    list_measured,
)
from lesiontk.search.space import (
    COMPRESS,
    RECIPE,
    TARGET,
    Assignment,
    SearchSpace,
    parse_space,
    read_space,
    show_setting,
)
from lesiontk.search.study import (
    RunningTrial,
    Study,
    TrialRecord,
    open_study,
    recall_study,
)
from lesiontk.search.validation_scores import ValidationImages, ValidationScorer
from lesiontk.search.winner import Scoring, WinnerEstimate, estimate_winner
from lesiontk.stage import EngineName, StepId, StoppedError, collect_engines
from lesiontk.stages.bench import find_reference
from lesiontk.stages.evaluate import VALIDATION_PREDICTIONS, read_evaluation, read_predictions
from lesiontk.stages.time_engine import EngineTiming, TimeConfig
from lesiontk.stages.validate import ValidateConfig
from lesiontk.store import Store
from lesiontk.workflow.choose_recipe import choose_recipe, list_overrides
from lesiontk.workflow.evaluate import evaluate_artefact
from lesiontk.workflow.lineage import model_of
from lesiontk.workflow.runner import build_step
from lesiontk.workflow.steps import Plan, Step
from lesiontk.workflow.train import plan_run

logger = logging.getLogger(__name__)

NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
RESULT, PAGE = "search.json", "search.html"
DEVICE_LOCK = "timing"
"""Engines are timed one at a time on this machine, whichever runtime they have."""


@dataclass(frozen=True, slots=True)
class SearchOptions:
    """What a call adds to a space: the images, and where the trials are recorded.

    `storage` is the URL of a database that machines share; by default it is a file of the
    workspace.
    """

    name: str
    data: Path | None = None
    accept_near_duplicates: bool = False
    storage: str | None = None


class Search:
    """A search in a workspace, checked and ready to run. Use `prepare_search`."""

    def __init__(
        self, store: Store, space: SearchSpace, options: SearchOptions, task: SearchTask, rule: str
    ) -> None:
        self.store, self.space, self.options = store, space, options
        self.task, self._rule = task, rule
        self.criteria = Criteria.parse(
            space.objectives, space.constraints, task.name, task.labels, task.positive
        )
        self.folder = search_folder(store, options.name)
        self.study: Study

    @property
    def page(self) -> Path:
        """The page that `write_result` writes."""
        return self.folder / PAGE

    # ---------------------------------------------------------------- trials

    def run(self) -> None:
        """Run trials until the space's number is reached, beside other processes that do so."""
        total = self.space.trials
        if self.space.sampler == "grid":
            self.study.enqueue_grid(total)
        while (trial := self.study.next_trial(total)) is not None:
            try:
                self._run_trial(trial)
            finally:
                trial.close()

    def _run_trial(self, trial: RunningTrial) -> None:
        settings = ", ".join(f"{k} {show_setting(v)}" for k, v in trial.assignment.items())
        logger.info("trial %d, of %d: %s", trial.number, self.space.trials, settings)
        store = self.store
        if self.space.pruner != "none":
            store = store.observed_by(self._watch(trial))
        try:
            figures = self._measure(trial, store)
            trial.complete(figures)
        except StoppedError as stopped:
            trial.prune(str(stopped))
            logger.info("trial %d: %s", trial.number, stopped)
        except LesionTKError as error:
            trial.reject(str(error))
            logger.warning("trial %d failed: %s", trial.number, error)
        else:
            self._log(trial, figures)

    def _watch(self, trial: RunningTrial) -> Any:
        objective = self.criteria.objectives[0]

        def on_epoch(epoch: int, metrics: Mapping[str, float]) -> None:
            if trial.report(epoch, metrics[objective]):
                raise StoppedError(
                    f"its training fell behind: {objective} {metrics[objective]:.3f} after epoch "
                    f"{epoch}"
                )

        return on_epoch

    def _log(self, trial: RunningTrial, figures: Figures) -> None:
        words = [f"{name} {figures.value(name):.4g}" for name in self.criteria.objectives]
        words += [
            f"not {violation.constraint} ({violation.measured:.4g})"
            for violation in self.criteria.list_violations(figures)
        ]
        noise = f"; noisy latency: {', '.join(figures.noise)}" if figures.noise else ""
        logger.info("trial %d: %s%s", trial.number, ", ".join(words), noise)

    def recipe_of(self, chosen: Assignment) -> Recipe:
        """Return the recipe of a candidate, with its engine and those it is compared with."""
        target = str(chosen.get(TARGET, self.space.target))
        backend = parse_target(target)[0]
        compared = ["keras:float32"]
        if FULL_PRECISION in BACKENDS.get(backend).info.precisions:
            compared.append(f"{backend}:{FULL_PRECISION}")
        settings = {
            **self.space.settings_of(chosen),
            "convert": list(dict.fromkeys([*compared, target])),
            "bundle": [],
        }
        return _choose(chosen.get(RECIPE, self.space.recipe), self.options, settings)

    def plan_of(self, chosen: Assignment) -> Plan:
        """Return the checked plan of a candidate.

        Errors as `plan_run`, and `UsageError` for one without the parent of a constraint.
        """
        plan = plan_run(self.store, self.recipe_of(chosen), gated=False)
        target = str(chosen.get(TARGET, self.space.target))
        engine = StepId("engine", target)
        steps = [_validation_step(plan, engine)]
        before = _find_parent(plan, target)
        if before is not None:
            steps.append(_validation_step(plan, before))
        else:
            for gate in self.criteria.constraints:
                if gate.relative:
                    raise UsageError(explain_no_parent(gate, target))
        rule = TimeConfig(rule=plan.recipe.bench)
        parents = {"engine": engine, "images": plan[engine].parents["images"]}
        steps.append(Step(engine.of_kind("timing"), "time", rule, parents))
        return replace(plan, steps=(*plan.steps, *steps))

    def _measure(self, trial: RunningTrial, store: Store) -> Figures:
        """Return the figures of a candidate: its engine is made, validated and timed."""
        plan, done = self.plan_of(trial.assignment), dict[str, Artefact]()

        def build(step: StepId) -> Artefact:
            with trial.attempt(step):
                return build_step(plan, step, store, done)

        engine = StepId("engine", str(trial.assignment.get(TARGET, self.space.target)))
        made = build(engine)
        own = build(engine.of_kind("validation"))
        before = _find_parent(plan, engine.target)
        parent = before and build(before.of_kind("validation"))
        with store.hold(DEVICE_LOCK):
            timing = build(engine.of_kind("timing"))
        measured = timing.read_facts(EngineTiming)
        scorer, images = _score(own, parent or None, self.task, self._rule)
        device = {"size_mb": measured.size_bytes / 1e6}
        if measured.emulated_by is None:
            device |= {
                "median_ms": measured.latency_ms.median,
                "peak_memory_mb": measured.peak_memory_bytes / 1e6,
            }
            if measured.latency_ms.p90 is not None:
                device["p90_ms"] = measured.latency_ms.p90
        return Figures(
            engine=made.name,
            model=model_of(store, made).name,
            validation=own.name,
            parent_validation=parent.name if parent else None,
            values={**scorer.values(), **device},
            parent=scorer.parent_values(),
            images=len(images.y_true),
            lesions=len(set(images.groups)),
            timings=measured.latency_ms.n,
            others_load=measured.others_load,
            noise=measured.noise,
        )

    # ---------------------------------------------------------------- before and after

    def check_values(self) -> None:
        """Raise `UsageError` for a value that no candidate can have, before any work."""
        for chosen, key, value in list_probes(self.space):
            fault: LesionTKError | None = None
            for name in self.space.vary.get(RECIPE, [self.space.recipe]):
                try:
                    self.plan_of({**chosen, RECIPE: name})
                except (UsageError, DataError) as error:
                    fault = fault or error
                else:
                    break
            else:
                of = f"{key}: {show_setting(value)} is not possible: " if key else ""
                raise UsageError(f"{of}{fault}") from fault

    def build_split(self) -> Artefact:
        """Return the split of all candidates, made first so that bad images end the search."""
        chosen = next(list_probes(self.space))[0]
        return build_step(self.plan_of(chosen), "split", self.store, {})

    def finish(self) -> SearchResult:
        """Evaluate the engines of the front on the test images, and write the result.

        Engines that were evaluated before are not evaluated again. Each reading of the test images
        is recorded, with the number of candidates so far.
        """
        with self.store.hold("searches"):  # another process may finish, too
            chosen = self._record_reading()
        for engine in chosen:
            evaluate_artefact(self.store, self.store.resolve(engine, "engine"))
        return self.write_result()

    def _record_reading(self) -> list[str]:
        """Return the engines of the front in this workspace, and record who reads the test."""
        trials = self.study.list_trials()
        front, measured = list_front(trials, self.criteria), list_measured(trials)
        here = set(self.store.list_names())
        chosen = [e for e, trial in measured.items() if trial.number in front and e in here]
        readings = self._readings()
        known = {engine for reading in readings for engine in reading.engines}
        new = tuple(engine for engine in chosen if engine not in known)
        if not new:
            return chosen
        if readings and readings[-1].candidates == len(measured):  # by another machine
            *readings, last = readings
            new = (*last.engines, *new)
        elif readings:
            logger.warning(
                "the test images were read before, after %d candidates; whoever saw those figures "
                "may have chosen by them",
                readings[-1].candidates,
            )
        readings = [*readings, TestReading(len(measured), new)]
        self.study.remember("readings", [reading.to_document() for reading in readings])
        return chosen

    def write_result(self) -> SearchResult:
        """Return the result so far, and write it with its page to the folder of the search."""
        from lesiontk.report.search_page import write_search_page

        result = self.collect()
        write_record(self.folder / RESULT, result)
        write_search_page(result, self.page)
        return result

    def collect(self) -> SearchResult:
        """Return the result so far; nothing is measured.

        That of the same trials and readings is read from its file.
        """
        trials, readings = self.study.list_trials(), self._readings()
        known = self._read_result()
        if known is not None and _is_of(known, trials, readings):
            return known
        measured = list_measured(trials)
        winners, why = self._estimate_winners(trials)
        return SearchResult(
            name=self.options.name,
            space=shorten_paths(self.space.model_dump(mode="json")),
            task=self.task,
            objectives=self.criteria.objectives,
            constraints=tuple(map(str, self.criteria.constraints)),
            trials=trials,
            candidates=len(measured),
            front=list_front(trials, self.criteria),
            winners=winners,
            without_winners=why,
            tests=self._read_tests({e for reading in readings for e in reading.engines}),
            readings=tuple(readings),
            importance=self.study.measure_importance(),
        )

    def _read_result(self) -> SearchResult | None:
        """Return the last result that was written; None without one that this version reads."""
        try:
            return SearchResult.from_document(read_json(self.folder / RESULT, "search"))
        except DataError:
            return None

    def _readings(self) -> list[TestReading]:
        return [TestReading.from_document(each) for each in self.study.recall("readings") or ()]

    def _read_tests(self, engines: set[str]) -> dict[str, TestFigures]:
        found: dict[str, TestFigures] = {}
        for evaluation in self.store.list_artefacts("evaluation"):
            engine = evaluation.manifest.parents["engine"].name
            if engine in engines and engine not in found:
                found[engine] = self._test_figures(engine, evaluation)
        return found

    def _test_figures(self, engine: str, evaluation: Artefact) -> TestFigures:
        judged = read_evaluation(evaluation)
        names = [*self.criteria.objectives, *(gate.metric for gate in self.criteria.constraints)]
        metrics = {}
        for name in filter(is_measured_on_validation, dict.fromkeys(names)):
            gate = Gate(name, 0.0)
            if gate.kind == AT_PARENT_SPECIFICITY:
                continue  # an evaluation has it at the engine's own threshold alone
            if is_of_positive(gate, self.task.positive):
                estimate = getattr(judged.operating_point, gate.kind)
            else:
                estimate = judged.metrics[name]
            metrics[name] = TestEstimate(estimate.value, estimate.low, estimate.high)
        return TestFigures(engine, evaluation.name, judged.n, judged.lesions, metrics)

    def _estimate_winners(
        self, trials: Iterable[TrialRecord]
    ) -> tuple[tuple[WinnerEstimate, ...], str]:
        feasible = [
            trial.figures
            for trial in list_measured(trials).values()
            if trial.figures is not None and not trial.violations
        ]
        metrics = list(filter(is_measured_on_validation, self.criteria.objectives))
        if not feasible or not metrics:
            return (), "no engine meets all constraints" if metrics else ""
        try:
            scorers = [self._scorer_of(figures) for figures in feasible]
        except UsageError:
            return (), "some engines are in the workspaces of other machines"
        images = scorers[0].images
        winners = []
        for metric in metrics:
            try:
                winners.append(
                    estimate_winner(
                        metric,
                        [_scoring(scorer, metric) for scorer in scorers],
                        images.groups,
                        lower_is_better=self.criteria.lower[metric],
                    )
                )
            except DataError as error:
                return tuple(winners), str(error)
        return tuple(winners), ""

    def _scorer_of(self, figures: Figures) -> ValidationScorer:
        own = self.store.resolve(figures.validation, "validation")
        name = figures.parent_validation
        parent = None if name is None else self.store.resolve(name, "validation")
        return _score(own, parent, self.task, self._rule)[0]


def prepare_search(store: Store, space: SearchSpace, options: SearchOptions) -> Search:
    """Return a search, checked before any work: its values, criteria, images and database.

    Raises `UsageError` for a space that cannot be searched, or another one under the same name, and
    `MissingRequirementError` for a database that cannot be reached.
    """
    if NAME.fullmatch(options.name) is None:
        raise UsageError(
            f"the name of the search is {show_value(options.name)}; expected up to 64 lower-case "
            "letters, digits, - and _."
        )
    recipes = [_choose(name, options, space.set) for name in space.vary.get(RECIPE, [space.recipe])]
    first = recipes[0]
    for name, recipe in zip(space.vary.get(RECIPE, ()), recipes, strict=False):
        _check_comparable(str(name), recipe, first)
    known = load_task(first.data.task)
    task = SearchTask(known.name, tuple(known.labels), tuple(known.positive))
    search = Search(store, space, options, task, first.evaluate.threshold)
    search.check_values()
    epochs = max(
        *(recipe.train.epochs for recipe in recipes),
        *(e for d in space.dimensions if d.key == "train.epochs" for e in d.ends),
        1,
    )
    _open(search, epochs)
    search.study.remember("trials", space.trials)
    search.study.agree("task", task.to_document(), "task")
    search.study.agree("rule", first.evaluate.threshold, "rule of the threshold")
    search.study.agree("split", search.build_split().content, "split of the images")
    return search


def run_search(
    store: Store,
    space: str | Path | Mapping[str, Any],
    *,
    name: str | None = None,
    data: Path | None = None,
    accept_near_duplicates: bool = False,
    trials: int | None = None,
    storage: str | None = None,
    overrides: Iterable[str] = (),
) -> Search:
    """Run a search until it has its trials, and evaluate its front on the test images.

    `space` is a file or its content; `name` is by default that of the file. While other processes
    still run trials of it, the test images are not read. Errors as `prepare_search`.
    """
    if isinstance(space, Mapping):
        chosen = parse_space(space)
    else:
        chosen = read_space(Path(space))
        name = name or name_from_path(Path(space))
    if name is None:
        raise UsageError("a space without a file has no name; expected a name of the search.")
    chosen = override_space(chosen, overrides)
    if trials is not None:
        chosen = parse_space({**chosen.model_dump(mode="json"), "trials": trials})
    search = prepare_search(
        store, chosen, SearchOptions(name, data, accept_near_duplicates, storage)
    )
    search.run()
    if all(trial.is_finished for trial in search.study.list_trials()):
        search.finish()
    return search


def override_space(space: SearchSpace, overrides: Iterable[str]) -> SearchSpace:
    """Return the space with ``section.key=value`` overrides in its `set`.

    Raises `UsageError` for a key that varies.
    """
    document = space.model_dump(mode="json")
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals:
            raise UsageError(f"override {override!r} is not section.key=value.")
        if key in space.vary:
            raise UsageError(f"--set {key} has no effect, because the space varies that key.")
        document["set"][key] = override_document({}, [f"value={text}"])["value"]
    return parse_space(document)


def open_search(store: Store, name: str | None, storage: str | None = None) -> Search:
    """Return an earlier search by its name, by default the last one of the workspace.

    Raises `UsageError` if there is none.
    """
    chosen = name or _find_last(store)
    known = list_searches(store)
    if storage is None and chosen not in known:
        raise UsageError(
            f"no search {chosen!r} in {store.workspace}; known are {', '.join(known) or 'none'}."
        )
    recorded = recall_study(storage or _own_url(search_folder(store, chosen)), chosen)
    if not {"space", "task", "rule", "trials"} <= set(recorded):
        raise UsageError(f"the search {chosen!r} has not begun; run `lesiontk search SPACE.yaml`.")
    space = parse_space({**recorded["space"], "trials": recorded["trials"]})
    task = SearchTask.from_document(recorded["task"])
    options = SearchOptions(chosen, storage=storage)
    search = Search(store, space, options, task, str(recorded["rule"]))
    _open(search, epochs=1)
    return search


def list_searches(store: Store) -> tuple[str, ...]:
    """Return the names of the searches in a workspace."""
    folders = sorted((store.workspace / "searches").glob("*/study.db"))
    return tuple(file.parent.name for file in folders)


def search_folder(store: Store, name: str) -> Path:
    """Return the folder of a search: its database, result and page."""
    return store.workspace / "searches" / name


def list_probes(space: SearchSpace) -> Iterator[tuple[dict[str, Any], str, Any]]:
    """Yield the first candidate, then for each key and value a candidate that has it.

    The others have their first value; an option of a technique has the first chain with it.
    """

    def complete(given: Mapping[str, Any]) -> dict[str, Any]:
        chosen: dict[str, Any] = {}
        for dimension in space.dimensions:
            if space.is_active(dimension.key, chosen):
                chosen[dimension.key] = given.get(dimension.key, dimension.ends[0])
        return chosen

    yield complete({}), "", None
    chains = next((d.choices for d in space.dimensions if d.key == COMPRESS), ())
    for dimension in space.dimensions:
        fitting = [{COMPRESS: c} for c in chains if space.is_active(dimension.key, {COMPRESS: c})]
        given = fitting[0] if fitting else {}
        for value in dimension.ends:
            chosen = complete({**given, dimension.key: value})
            if dimension.key not in chosen:
                raise UsageError(
                    f"{dimension.key} never applies: no chain of `compress` has that technique."
                )
            yield chosen, dimension.key, value


def _choose(name: Any, options: SearchOptions, settings: Mapping[str, Any]) -> Recipe:
    return choose_recipe(
        str(name),
        data=options.data,
        accept_near_duplicates=options.accept_near_duplicates,
        overrides=list_overrides(settings),
    )


def _check_comparable(name: str, recipe: Recipe, first: Recipe) -> None:
    """Raise `UsageError` for recipes whose candidates could not be compared."""
    shared = ("source", "path", "task", "split", "synthetic", "max_failures")
    differing = [f"data.{key}" for key in shared
                 if getattr(recipe.data, key) != getattr(first.data, key)]  # fmt: skip
    differing += [key for key in ("evaluate", "verify", "bench")
                  if getattr(recipe, key) != getattr(first, key)]  # fmt: skip
    if differing:
        raise UsageError(
            f"the recipes {first.name} and {name} differ in {', '.join(differing)}, so their "
            "engines could not be compared; expected the same, such as by `set`."
        )


def _open(search: Search, epochs: int) -> None:
    folder = _make_folder(search.store, search.options.name)
    url = search.options.storage or _own_url(folder)
    name = search.options.name
    search.study = open_study(
        url, name, search.space, search.criteria, folder / "locks", epochs=epochs
    )


def _make_folder(store: Store, name: str) -> Path:
    folder = search_folder(store, name)
    with store.hold("searches"):  # checks the workspace's own files, too
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def _own_url(folder: Path) -> str:
    return f"sqlite:///{(folder / 'study.db').resolve()}"


def _find_last(store: Store) -> str:
    # what was written last may be in the log of SQLite alone, study.db-wal
    files = (store.workspace / "searches").glob("*/study.db*")
    last = max(files, key=lambda file: file.stat().st_mtime_ns, default=None)
    if last is None:
        raise UsageError(
            f"no search in {store.workspace}; `lesiontk search SPACE.yaml` begins one, `lesiontk "
            "search init` writes an example."
        )
    return last.parent.name


def _validation_step(plan: Plan, engine: StepId) -> Step:
    parents = {"engine": engine, "images": plan[engine].parents["images"]}
    return Step(engine.of_kind("validation"), "validate", ValidateConfig(), parents)


def _find_parent(plan: Plan, target: str) -> StepId | None:
    """Return the engine that a candidate is compared with, as in a benchmark."""
    engines = collect_engines({step.name: step for step in plan.steps}, "engine")
    found = find_reference(EngineName(target), engines)
    return None if found is None else next(
        step.name
        for step in plan.steps
        if step.name.kind == "engine"
        and step.name.target == found.target
        and bool(step.name.variant) == found.reference
    )  # fmt: skip


def _score(
    own: Artefact, parent: Artefact | None, task: SearchTask, rule: str
) -> tuple[ValidationScorer, ValidationImages]:
    y_true, child, groups, ids, labels = read_predictions(own, VALIDATION_PREDICTIONS)
    before = None
    if parent is not None:
        known = read_predictions(parent, VALIDATION_PREDICTIONS)
        if known[3] != ids:
            raise DataError(
                f"{parent.name} and {own.name} are of different images; expected one split."
            )
        before = known[1]
    images = ValidationImages(y_true, groups, labels, task.positive, rule)
    return ValidationScorer(images, child, before), images


def _is_of(
    result: SearchResult, trials: Sequence[TrialRecord], readings: Sequence[TestReading]
) -> bool:
    """Return whether a result is of these trials and readings, with the figures of all engines."""
    tested = {engine for reading in readings for engine in reading.engines}
    same = plain_value(result.trials) == plain_value(trials)
    return same and result.readings == tuple(readings) and set(result.tests) == tested


def _scoring(scorer: ValidationScorer, metric: str) -> Scoring:
    return lambda weights: scorer.compute(weights, metric)[metric]
