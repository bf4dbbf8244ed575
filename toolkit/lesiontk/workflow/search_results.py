"""The result of a search: its front, its readings of the test images, its winners and its page."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

from lesiontk.document import plain_value, write_record
from lesiontk.errors import DataError, UsageError
from lesiontk.files.strict_json import read_json
from lesiontk.recipe.gate_grammar import AT_PARENT_SPECIFICITY, Gate, is_of_positive
from lesiontk.records import Artefact
from lesiontk.report.render import shorten_paths
from lesiontk.search.criteria import Figures
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
from lesiontk.search.study import Study
from lesiontk.search.trial_record import TrialRecord
from lesiontk.search.validation_scores import ValidationScorer
from lesiontk.search.winner import Scoring, WinnerEstimate, estimate_winner
from lesiontk.stages.evaluate import read_evaluation
from lesiontk.workflow.evaluate import evaluate_artefact
from lesiontk.workflow.search_candidates import Candidates
from lesiontk.workflow.search_trials import score_candidate
from lesiontk.workflow.tracked_searches import record_runs, search_run, trial_run

logger = logging.getLogger(__name__)

RESULT, PAGE = "search.json", "search.html"


class Results:
    """What a study has found so far, in the folder of its search."""

    def __init__(
        self, folder: Path, candidates: Candidates, study: Study, task: SearchTask, rule: str
    ) -> None:
        self.folder, self.study, self.task, self._rule = folder, study, task, rule
        self.store, self.space = candidates.store, candidates.space
        self.criteria = candidates.criteria

    @property
    def page(self) -> Path:
        """The page that `write_result` writes."""
        return self.folder / PAGE

    def finish(self) -> SearchResult:
        """Evaluate the engines of the front on the test images, and write the result.

        Engines that were evaluated before are not evaluated again. Each reading of the test images
        is recorded, with the number of candidates so far.
        """
        with self.store.hold("searches"), self.study.hold():  # another process may finish, too
            chosen = self._record_reading()
        for engine in chosen:
            evaluate_artefact(self.store, self.store.resolve(engine, "engine"))
        result = self.write_result()
        own = (
            trial for trial in result.trials if trial.host == self.study.host and trial.is_finished
        )
        record_runs(  # a process may have ended between a trial and its record
            self.store,
            search_run(self.study, self.space, result.trials),
            *(trial_run(self.study, trial) for trial in own),
        )
        return result

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
            name=self.folder.name,
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
        return score_candidate(own, parent, self.task, self._rule)[0]


def _is_of(
    result: SearchResult, trials: Sequence[TrialRecord], readings: Sequence[TestReading]
) -> bool:
    """Return whether a result is of these trials and readings, with the figures of all engines."""
    tested = {engine for reading in readings for engine in reading.engines}
    same = plain_value(result.trials) == plain_value(trials)
    return same and result.readings == tuple(readings) and set(result.tests) == tested


def _scoring(scorer: ValidationScorer, metric: str) -> Scoring:
    return lambda weights: scorer.compute(weights, metric)[metric]
