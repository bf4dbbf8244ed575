"""Stage: the sensitivity of each layer to int8, and the layers that stay in higher precision.

Their precision is that of the back end, `PrecisionInfo.mixed`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray

from lesiontk.backends import BACKENDS
from lesiontk.backends.backend import Backend, QuantizationPlan
from lesiontk.backends.reference_outputs import engine_file, run_engine
from lesiontk.compress.mixed_precision import SearchResult, find_fewest
from lesiontk.compress.sensitivity import LayerSensitivity, Sensitivity, Trial
from lesiontk.data.images import ImageSet, PreparedImages, open_images
from lesiontk.document import Record, read_table, write_table
from lesiontk.errors import DataError, UsageError
from lesiontk.evaluate.comparison import measure_agreement
from lesiontk.evaluate.default_gates import check_gates_of_task, expand_gates
from lesiontk.evaluate.loss_bounds import Predictions
from lesiontk.evaluate.metrics import compute_metrics
from lesiontk.evaluate.search_criterion import choose_criteria, meet_criteria
from lesiontk.recipe import QuantizeRule, SensitivityRule
from lesiontk.records import Artefact, EngineSpec
from lesiontk.stage import Context, Stage, StageConfig, StageInfo, StageOutput
from lesiontk.stages.convert import plan_quantization
from lesiontk.stages.engine_tools import tools_of_conversion
from lesiontk.stages.ranges import read_measured

PRECISION = "mixed"
LAYERS = "sensitivity.csv"
"""Layer, mean drift, top-1 agreement and change of balanced accuracy, in the graph's order."""
TRIALS = "trials.json"
Probabilities = NDArray[np.float32]
R = TypeVar("R", bound=Record)


class SensitivityConfig(StageConfig):
    """The back end, the ranking of layers, and the criterion on validation."""

    backend: str
    quantize: QuantizeRule
    rule: SensitivityRule
    gate: tuple[str, ...]


class SensitivityStage(Stage):
    """Produces a row for each layer, quantized alone, and the layers that stay in float.

    These are the fewest, the most sensitive first, with which the engine meets the search's
    criterion on validation: no measured loss exceeds the margin of its gate (`search_criterion`).
    This is not a verdict; the gates test the engine on the test images. The result is None if no
    set within the budget meets the criterion. Every trial is recorded, so a killed search
    continues, and so does one with a larger budget.
    """

    info: ClassVar[StageInfo] = StageInfo(
        name="sensitivity",
        version=3,
        accepts={
            "source": "engine",
            "images": "images",
            "calibration": "calibration",
            "ranges": "ranges",
        },
        produces="sensitivity",
        config=SensitivityConfig,
        schema_version=Sensitivity.SCHEMA,
        tools=("numpy", "scipy"),
    )

    def check(self, config: SensitivityConfig) -> None:
        """Raise `UsageError` without a gate, because the search needs a criterion."""
        if not config.gate:
            raise UsageError(
                f"{config.backend}:mixed requires a criterion; expected a gate such as `macro_auc "
                ">= parent - 0.01 @ 0.95`, or default, in the recipe."
            )

    def list_tools(
        self, config: SensitivityConfig, parents: Mapping[str, Artefact]
    ) -> tuple[str, ...]:
        return (*self.info.tools, *tools_of_conversion(f"{config.backend}:{PRECISION}"))

    def without_budget(self, config: SensitivityConfig) -> SensitivityConfig:
        rule = config.rule.model_copy(update={"trials": 1})
        return config.model_copy(update={"rule": rule})

    def run(
        self, parents: Mapping[str, Artefact], config: SensitivityConfig, context: Context
    ) -> StageOutput:
        self.check(config)
        backend = BACKENDS.get(config.backend)()
        source = engine_file(parents["source"])
        images = open_images(parents["images"])
        info = backend.info.precisions[PRECISION]
        measured = read_measured(parents["ranges"])
        plan = plan_quantization(parents, images, measured, config.quantize, info)
        task = parents["images"].read_facts(PreparedImages).task
        check_gates_of_task(config.gate, task.name, task.labels, task.positive)
        criteria = choose_criteria(expand_gates(config.gate, task.positive), task.positive)
        if not criteria:
            raise UsageError(
                f"no gate of {', '.join(config.gate)} can guide the search for "
                f"{config.backend}:mixed, because thresholds and latency are not defined there; "
                "expected one such as `macro_auc >= parent - 0.01 @ 0.95`."
            )
        layers = backend.list_layers(source)
        validation_rows = images.indices("validation")
        parent = run_engine(source, images.pixels[validation_rows], context.threads)
        bench = TrialEngines(backend, source, parent.spec, plan, context)
        trials = TrialLog(context.scratch / TRIALS)

        probe_rows = images.draw_stratified("validation", config.rule.images, seed=0)
        rows = measure_layers(
            bench, trials, layers, parent.outputs, validation_rows, probe_rows, images
        )
        write_table(context.directory / LAYERS, LayerSensitivity, rows)
        ranked = [row.layer for row in sorted(rows, key=_by_drift)]

        def order(kept: frozenset[str]) -> tuple[str, ...]:
            return tuple(sorted(kept, key=ranked.index))

        def evaluate_criteria(kept: frozenset[str]) -> Trial:
            outputs = bench.run(kept, images.pixels[validation_rows], correct_bias=True)
            found = Predictions(
                y_true=images.targets[validation_rows],
                child=outputs,
                labels=images.labels,
                groups=[images.groups[row] for row in validation_rows],
                positive=task.positive,
                parent=parent.outputs,
            )
            results = meet_criteria(found, criteria)
            if len(results) < len(criteria):
                raise DataError(
                    f"the search by {', '.join(criteria)} is not possible on validation, which has "
                    "no images of one of its classes; expected another metric."
                )
            return Trial(order(kept), results)

        searched: list[Trial] = []

        def meets(kept: frozenset[str]) -> bool:
            name = "keep " + " ".join(sorted(kept))
            searched.append(trials.load_or_run(name, Trial, lambda: evaluate_criteria(kept)))
            return searched[-1].passed

        with context.progress.task("searching the layers that stay in float", None):
            found = find_fewest(ranked, meets, config.rule.trials)
        facts = Sensitivity(
            backend=config.backend,
            layers=len(layers),
            images=len(probe_rows),
            validation=len(validation_rows),
            kept=None if found.kept is None else order(found.kept),
            kept_in=info.mixed,
            trials=tuple(searched),
            untried=None if found.untried is None else order(found.untried),
            outcome=describe_search(
                found, len(searched), len(validation_rows), len(layers), info.mixed
            ),
        )
        return StageOutput(facts.to_document(), unfinished=found.untried is not None)


def describe_search(
    found: SearchResult, tried: int, validation: int, layers: int, precision: str
) -> str:
    """Return the result of a search as a sentence, of `tried` sets of layers on `validation`
    images."""
    where = f"on validation (n = {validation})"
    if found.kept is None and found.untried is None:
        return f"the margins are not met {where}, not even with all {layers} layers in {precision}"
    budget = f"sensitivity.trials ({tried}) is exhausted"
    then = f"next would be {len(found.untried or ())} of {layers} layers in {precision}"
    if found.kept is None:
        return f"the margins are not met {where} by any set that was tried: {budget}; {then}"
    summary = (
        f"the margins are met {where} with {len(found.kept)} of {layers} layers in {precision}"
    )
    return summary if found.untried is None else f"{summary}; fewer may suffice: {budget}; {then}"


def rank_layers(artefact: Artefact) -> list[LayerSensitivity]:
    """Return the rows of `LAYERS`, the most sensitive first."""
    return sorted(read_table(artefact.file(LAYERS), LayerSensitivity), key=_by_drift)


def _by_drift(row: LayerSensitivity) -> float:
    return -row.mean_drift


@dataclass(frozen=True, slots=True)
class TrialEngines:
    """Temporary engines of one source, each run once."""

    backend: Backend
    source: Path
    spec: EngineSpec
    plan: QuantizationPlan
    context: Context

    def run(
        self, float_layers: frozenset[str], pixels: NDArray[np.uint8], *, correct_bias: bool
    ) -> Probabilities:
        """Return the outputs of the engine with these layers in float."""
        plan = replace(
            self.plan,
            float_layers=float_layers,
            correct_bias=self.plan.correct_bias and correct_bias,
        )
        spec = replace(self.spec, backend=self.backend.info.name, precision=PRECISION)
        record = self.backend.convert(
            self.source, PRECISION, spec, plan, self.context.scratch, examine=False
        )
        path = self.context.scratch / record.file
        outputs = run_engine(path, pixels, self.context.threads).outputs
        path.unlink()
        return outputs


class TrialLog:
    """The results of trials by name, written after each trial."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.found: dict[str, dict[str, Any]] = (
            json.loads(file.read_text()) if file.is_file() else {}
        )

    def load_or_run(self, name: str, record: type[R], attempt: Callable[[], R]) -> R:
        """Return the result of a trial, stored or computed now."""
        if name not in self.found:
            self.found[name] = attempt().to_document()
            temporary = self.file.with_suffix(".next")
            temporary.write_text(json.dumps(self.found))
            temporary.replace(self.file)
        return record.from_document(self.found[name])


def measure_layers(
    bench: TrialEngines,
    trials: TrialLog,
    layers: tuple[str, ...],
    parent: Probabilities,
    validation_rows: NDArray[np.int64],
    probe_rows: NDArray[np.int64],
    images: ImageSet,
) -> list[LayerSensitivity]:
    """Return a row for each layer: the effect of quantizing it alone on the images `probe_rows`.

    `parent` contains the float engine's outputs for `validation_rows`, which include `probe_rows`.
    Biases are not corrected, because correcting one layer's would take as long as correcting all.
    """
    expected = parent[np.searchsorted(validation_rows, probe_rows)]
    targets = images.targets[probe_rows]

    def balanced_accuracy(outputs: Probabilities) -> float:
        return float(compute_metrics(targets, outputs, images.labels)["balanced_accuracy"][0])

    before = balanced_accuracy(expected)

    def measure(layer: str) -> LayerSensitivity:
        others = frozenset(layers) - {layer}
        outputs = bench.run(others, images.pixels[probe_rows], correct_bias=False)
        agreement = measure_agreement(expected, outputs)
        return LayerSensitivity(
            layer=layer,
            mean_drift=agreement.mean_absolute_drift,
            top1_agreement=agreement.top1_agreement,
            balanced_accuracy=balanced_accuracy(outputs) - before,
        )

    rows: list[LayerSensitivity] = []
    with bench.context.progress.task("quantizing each layer alone", len(layers)) as advance:
        for layer in layers:
            rows.append(
                trials.load_or_run(f"layer {layer}", LayerSensitivity, partial(measure, layer))
            )
            advance(1)
    return rows
