"""Stage: comparison of every engine with its full-precision parent: latency, size, memory,
accuracy, gates."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from lesiontk.backends.engine_facts import EngineFacts
from lesiontk.backends.execution import find_fallback, runs_on_cpu
from lesiontk.backends.reference_outputs import engine_file
from lesiontk.bench.benchmark import FULL_PRECISION, Benchmark, EngineRow, ParentComparison
from lesiontk.bench.device import DeviceBench, index_devices
from lesiontk.bench.findings import list_findings
from lesiontk.bench.measure import LatencySamples, Measurement, measure_engines, measure_peaks
from lesiontk.bench.roofline import Work
from lesiontk.data.images import PreparedImages, open_images
from lesiontk.document import write_record
from lesiontk.evaluate.comparison import compare_predictions
from lesiontk.evaluate.default_gates import check_gates_of_task, expand_gates
from lesiontk.evaluate.gate import judge_engines
from lesiontk.evaluate.latency_rounds import Rounds
from lesiontk.evaluate.operating_point import OperatingPoint
from lesiontk.evaluate.subgroups import compare_subgroups
from lesiontk.evaluate.verdict import Outcome, Unresolved
from lesiontk.files.hashing import hash_document
from lesiontk.recipe import BenchRule, EvaluateRule
from lesiontk.records import Artefact
from lesiontk.stage import (
    MEASURING,
    Context,
    EngineName,
    Stage,
    StageConfig,
    StageInfo,
    StageOutput,
    collect_engines,
    collect_roles,
)
from lesiontk.stages.engine_tools import tools_of_runtime
from lesiontk.stages.evaluate import (
    FloatArray,
    IntArray,
    Predictions,
    read_attributes,
    read_evaluation,
    read_operating_point,
    read_predictions,
)
from lesiontk.stages.gate_inputs import collect_gate_input, drop_losses, list_gated
from lesiontk.system.conditions import read_conditions
from lesiontk.system.energy import open_energy_counter
from lesiontk.system.machine import describe_machine

DOCUMENT, SAMPLES = "benchmark.json", "latency_samples.json"
TIMED_IMAGES = 32


class BenchConfig(StageConfig):
    """The rules of timing and of testing differences, and the gates.

    `gate` are lines of the gate grammar, or ``default`` for those of the images' task. `devices`
    are measurements of engines elsewhere; gates on their figures are decided there.
    """

    rule: BenchRule
    gate: tuple[str, ...] = ()
    unresolved: Unresolved = Unresolved.WARN
    statistics: EvaluateRule
    devices: tuple[DeviceBench, ...] = ()


class BenchStage(Stage):
    """Produces ``benchmark.json`` (the table) and the raw latencies."""

    info: ClassVar[StageInfo] = StageInfo(
        name="bench",
        version=15,
        accepts={"images": "images", "engine": "engine", "evaluation": "evaluation"},
        produces="benchmark",
        config=BenchConfig,
        schema_version=Benchmark.SCHEMA,
        tools=("numpy", "scipy"),
        needs=MEASURING,
    )

    def external_inputs(self, config: BenchConfig) -> dict[str, str]:
        """The machine: a workspace on another machine is measured again."""
        return {"machine": hash_document(describe_machine().to_document())}

    def list_tools(self, config: BenchConfig, parents: Mapping[str, Artefact]) -> tuple[str, ...]:
        engines = collect_engines(parents, "engine").values()
        return (*self.info.tools, *tools_of_runtime(engines))

    def run(
        self, parents: Mapping[str, Artefact], config: BenchConfig, context: Context
    ) -> StageOutput:
        images = open_images(parents["images"])
        task = parents["images"].read_facts(PreparedImages).task
        check_gates_of_task(config.gate, task.name, task.labels, task.positive)
        gates = expand_gates(config.gate, task.positive)
        rows = images.draw_stratified("validation", TIMED_IMAGES, seed=0)
        engines = collect_engines(parents, "engine")
        evaluations = collect_roles(parents, "evaluation")
        files: dict[str, Path] = {name: engine_file(engine) for name, engine in engines.items()}
        before = read_conditions()
        measured = _share_work(
            measure_engines(files, images.pixels[rows], config.rule, context.progress), engines
        )
        conditions = (before, read_conditions())
        references = {target: find_reference(target, engines) for target in engines}
        predictions = {target: read_predictions(a) for target, a in evaluations.items()}
        points = {target: read_operating_point(a) for target, a in evaluations.items()}
        devices = index_devices(config.devices)
        judged = [
            collect_gate_input(
                target,
                references[target],
                task.positive,
                evaluations,
                devices[target].figures()
                if target in devices
                else measured[target].device_figures(),
            )
            for target in list_gated(engines, references)
        ]
        verdicts = judge_engines(judged, drop_losses(gates, judged), config.statistics)
        benchmark = Benchmark(
            recipe=context.recipe,
            task=images.task,
            labels=images.labels,
            critical=images.critical,
            image_size=images.preprocessing.image_size,
            split_hash=images.split_hash,
            threads=config.rule.threads,
            confidence=config.statistics.confidence,
            rows=tuple(
                _row(
                    target, engines, measured, references, evaluations, predictions, points, config
                )
                for target in engines
            ),
            devices=tuple(device.to_row() for device in config.devices),
            gates=gates,
            gate=verdicts,
            unresolved=config.unresolved,
            machine=describe_machine(),
            conditions=conditions,
            peaks=measure_peaks(config.rule.threads),
            energy_lacks=open_energy_counter().lacks,
        )
        benchmark = replace(benchmark, findings=tuple(list_findings(benchmark)))
        write_record(context.directory / DOCUMENT, benchmark)
        samples = LatencySamples({target: m.timings for target, m in measured.items()})
        write_record(context.directory / SAMPLES, samples)
        return StageOutput(
            {
                "engines": list(engines),
                "split_hash": images.split_hash,
                "gates": {
                    str(outcome): sum(verdict.outcome is outcome for verdict in verdicts)
                    for outcome in Outcome
                },
            }
        )


def read_benchmark(artefact: Artefact) -> Benchmark:
    """Return a benchmark. Raises `DataError` for one of another version of lesiontk."""
    return artefact.read(DOCUMENT, Benchmark)


def read_latencies(artefact: Artefact) -> dict[str, Rounds]:
    """Return engine -> its raw ms by round, single stream. Raises as `read_benchmark`."""
    return {
        name: timings[0].rounds_ms
        for name, timings in artefact.read(SAMPLES, LatencySamples).engines.items()
        if find_fallback(timings[0].execution) is None
    }


def find_reference(engine: EngineName, engines: Container[str]) -> EngineName | None:
    """Return the full-precision reference engine of `engine`.

    It is the float32 engine of the same back end; for a float32 engine the trained model itself.
    The model in Keras is its own reference: None. The references of a compressed network's engines
    are those of the trained network.
    """
    backend = engine.target.partition(":")[0]
    whole = (f"{backend}:float32", "keras:float32")
    trained = [name for target in whole if (name := EngineName(target, reference=True)) in engines]
    for parent in trained or map(EngineName, whole):
        if parent in engines and parent != engine:
            return parent
    return None


def _share_work(
    measured: Mapping[str, Measurement], engines: Mapping[EngineName, Artefact]
) -> dict[str, Measurement]:
    """Return the measurements; a float32 engine whose work is not known, as Keras, has that of
    another one of the same network and image size. Both execute on the CPU, because the work is
    compared with its peak."""
    floats = [
        name
        for name, a in engines.items()
        if a.read_facts(EngineFacts).precision == FULL_PRECISION
        and runs_on_cpu(measured[name].execution)
    ]

    def find(name: EngineName) -> Work | None:
        size = measured[name].single_stream.image_size
        alike = (
            measured[other]
            for other in floats
            if other.reference == name.reference
            and measured[other].single_stream.image_size == size
        )
        return next((m.work for m in alike if m.work is not None), None)

    return {
        name: replace(measured[name], work=find(name))
        if measured[name].work is None and name in floats
        else measured[name]
        for name in engines
    }


def _row(
    target: EngineName,
    engines: Mapping[EngineName, Artefact],
    measured: Mapping[str, Measurement],
    references: Mapping[EngineName, EngineName | None],
    evaluations: Mapping[str, Artefact],
    predictions: Mapping[str, Predictions],
    points: Mapping[str, OperatingPoint],
    config: BenchConfig,
) -> EngineRow:
    facts, own_evaluation = engines[target].read_facts(EngineFacts), measured[target]
    reference = references[target]
    versus = parent = None
    rule = config.statistics
    if reference is not None:
        parent = measured[reference]
        truth, before, after, labels, groups = _pair(reference, target, predictions)
        comparison = compare_predictions(
            truth,
            before,
            after,
            labels,
            groups,
            resamples=rule.resamples,
            confidence=rule.confidence,
            seed=rule.seed,
            points=(points[reference], points[target]),
        )
        speedup = own_evaluation.compare_speed(parent, rule.confidence)
        subgroups = compare_subgroups(
            read_attributes(evaluations[target]),
            (points[reference], points[target]),
            truth,
            before,
            after,
            labels,
            groups,
            resamples=rule.resamples,
            confidence=rule.confidence,
            seed=rule.seed,
        )
        versus = ParentComparison(
            **comparison.field_values(),
            subgroups=subgroups,
            parent=reference.target,
            reference=reference.reference,
            speedup=speedup.value if speedup else None,
            speedup_interval=speedup.interval if speedup else None,
            size_ratio=parent.size_bytes / own_evaluation.size_bytes,
        )
    row = own_evaluation.to_row(
        engine=engines[target].name,
        target=target.target,
        reference=target.reference,
        backend=facts.backend,
        precision=facts.precision,
        threads=config.rule.threads,
        parent=parent,
        confidence=rule.confidence,
    )
    scored = row.with_scores(read_evaluation(evaluations[target]))
    return replace(scored, versus_parent=versus)


def _pair(
    reference: str, target: str, predictions: Mapping[str, Predictions]
) -> tuple[IntArray, FloatArray, FloatArray, list[str], list[str]]:
    """Return truth, the parent's and the engine's probabilities, labels and lesions."""
    truth, parent, groups, _, labels = predictions[reference]
    return truth, parent, predictions[target][1], labels, groups
