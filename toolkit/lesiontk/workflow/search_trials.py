"""The trials of a search: each candidate is made, validated and timed, and its figures recorded."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from lesiontk.errors import DataError, LesionTKError, StorageError
from lesiontk.records import Artefact
from lesiontk.search.criteria import Figures
from lesiontk.search.result import SearchTask
from lesiontk.search.space import show_setting
from lesiontk.search.study import RunningTrial, Study
from lesiontk.search.validation_scores import ValidationImages, ValidationScorer
from lesiontk.stage import EpochObserver, StepId, StoppedError
from lesiontk.stages.evaluate import VALIDATION_PREDICTIONS, read_predictions
from lesiontk.stages.time_engine import EngineTiming
from lesiontk.store import Store
from lesiontk.workflow.executor import Executor
from lesiontk.workflow.lineage import model_of
from lesiontk.workflow.runner import build_step
from lesiontk.workflow.search_candidates import Candidates, find_parent
from lesiontk.workflow.tracked_searches import record_runs, search_run, trial_run

logger = logging.getLogger(__name__)


class Trials:
    """The trials of a study, run by this process beside others that do so.

    Only this process asks the study for trials and tells it their figures; `executor` makes their
    steps. `rule` is that of the thresholds of the metrics.
    """

    def __init__(
        self,
        candidates: Candidates,
        study: Study,
        task: SearchTask,
        rule: str,
        executor: Executor,
    ) -> None:
        self.candidates, self.study, self.task, self._rule = candidates, study, task, rule
        self.executor = executor
        self.store, self.space = candidates.store, candidates.space
        self.criteria = candidates.criteria

    def run(self) -> None:
        """Run trials until the space's number is reached, beside other processes that do so."""
        if self.space.sampler == "grid":
            self.study.enqueue_grid(self.space.trials)
        self.executor.repeat(self._run_next)

    def _run_next(self) -> bool:
        """Run a trial, and return whether there was one."""
        trial = self.study.next_trial(self.space.trials)
        if trial is None:
            return False
        with trial, self.executor.job(f"trial {trial.number}"):
            self._run_trial(trial)
        return True

    def _run_trial(self, trial: RunningTrial) -> None:
        settings = ", ".join(f"{k} {show_setting(v)}" for k, v in trial.assignment.items())
        logger.info("trial %d, of %d: %s", trial.number, self.space.candidates, settings)
        store = self.store
        if self.space.pruner != "none":
            store = store.observed_by(self._watch(trial))
        try:
            figures = self._measure(trial, store)
            trial.complete(figures)
        except StoppedError as stopped:
            trial.prune(str(stopped))
            logger.info("trial %d: %s", trial.number, stopped)
        except StorageError:
            raise  # says nothing about the candidate: the same command continues the trial
        except LesionTKError as error:
            trial.reject(str(error))
            logger.warning("trial %d failed: %s", trial.number, error)
        else:
            self._log(trial, figures)
        runs = search_run(self.study, self.space), trial_run(self.study, trial.to_record())
        record_runs(self.store, *runs)

    def _watch(self, trial: RunningTrial) -> EpochObserver:
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

    def _measure(self, trial: RunningTrial, store: Store) -> Figures:
        """Return the figures of a candidate: its engine is made, validated and timed."""
        plan, done = self.candidates.plan_of(trial.assignment), dict[str, Artefact]()

        def build(step: StepId) -> Artefact:
            with trial.attempt(step):
                return build_step(plan, step, store, done, executor=self.executor)

        engine = StepId("engine", self.space.candidate_of(trial.assignment).target)
        made = build(engine)
        own = build(engine.of_kind("validation"))
        before = find_parent(plan, engine.target)
        parent = before and build(before.of_kind("validation"))
        timing = build(engine.of_kind("timing"))
        measured = timing.read_facts(EngineTiming)
        scorer, images = score_candidate(own, parent or None, self.task, self._rule)
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


def score_candidate(
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
