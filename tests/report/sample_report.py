"""What a run might have found out, with real statistics of made-up predictions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from lesiontk.backends.backend import EngineStructure, Quantization
from lesiontk.backends.engine_facts import EngineFacts
from lesiontk.backends.execution import Execution
from lesiontk.backends.operator_profile import OperatorCost, OperatorProfile, OperatorTimes
from lesiontk.bench.benchmark import Benchmark, EngineRow, ParentComparison
from lesiontk.bench.layer_profile import LayerProfile, summarize_layers
from lesiontk.bench.load import Load
from lesiontk.bench.peak import Peak
from lesiontk.bench.roofline import Work
from lesiontk.bench.timing import Latency, PathTiming, ScenarioTiming
from lesiontk.calibration.drawn_list import DrawnList
from lesiontk.data.dealt_split import DealtSplit
from lesiontk.data.duplicates import Contradictions
from lesiontk.data.inspection import Ages, BrokenImage, Inspection
from lesiontk.data.tasks import Task
from lesiontk.evaluate.bootstrap import evaluate_predictions
from lesiontk.evaluate.comparison import Agreement, compare_predictions
from lesiontk.evaluate.evaluation import EngineEvaluation, ExternalEvaluation
from lesiontk.evaluate.gate import GateInput, judge_engines
from lesiontk.evaluate.loss_bounds import Predictions
from lesiontk.evaluate.operating_point import (
    OperatingPoint,
    evaluate_operating_point,
    freeze_operating_point,
)
from lesiontk.evaluate.signal_to_noise import LayerSignal, SignalSummary
from lesiontk.evaluate.temperature import evaluate_temperature
from lesiontk.evaluate.verdict import GateVerdict
from lesiontk.evaluate.verification import Check, Verification
from lesiontk.recipe import EvaluateRule, read_recipe
from lesiontk.records import SUBSETS
from lesiontk.report.render import ArtefactOrigin, ReportData
from lesiontk.report.tables import JudgedImage
from lesiontk.stage import EngineName
from lesiontk.stages.bench import find_reference
from lesiontk.system.conditions import Conditions
from lesiontk.system.machine import Machine
from tests.model_facts import make_facts

SEVEN = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")
TWO = ("benign", "malignant")
TARGETS = ("keras:float32", "tflite:float32", "tflite:int8", "onnx:float32", "onnx:int8")
LATENCIES = (1.11, 0.526, 0.189, 0.572, 0.298, 0.0777)
EMULATED = ("runtime", "TensorRT", "ONNX Runtime on the CPU", "no GPU; outputs are emulated")
REFERENCE_OUTPUTS = ("useful", "blind", "constant")
"""Engines that find what is there, that miss nearly all of a class, and that say one class."""
IMAGES = 160
RESAMPLES = 100
GROUPS = [f"lesion-{row // 2:03d}" for row in range(IMAGES)]
SHARES = (("train", 5), ("validation", 1), ("test", 1))

FloatArray = npt.NDArray[np.float32]


def make_probabilities(
    labels: Sequence[str],
    targets: Sequence[str],
    noise: float,
    answers: str = "useful",
    images: int = IMAGES,
) -> tuple[npt.NDArray[np.int64], dict[str, FloatArray]]:
    """Return truth [N] and the probabilities of each target; int8 differs from float by `noise`.

    `answers` is one of `REFERENCE_OUTPUTS`; a blind engine misses ``mel`` or ``malignant``.
    """
    generator = np.random.default_rng(3)
    truth = np.arange(images) // 2 % len(labels)
    logits = generator.normal(size=(images, len(labels)))
    logits[np.arange(images), truth] += 2.0
    if answers == "blind":
        critical = [label in ("mel", "malignant") for label in labels].index(True)
        logits[:, critical] -= 4.0
    if answers == "constant":
        logits = generator.normal(size=logits.shape) * 0.01 + 4.0 * np.arange(len(labels))
    found = {}
    for target in targets:
        shaken = logits
        if not target.endswith("float32"):
            shaken = logits + noise * generator.normal(size=logits.shape)
        powers = np.exp(shaken)
        found[target] = (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)
    return truth.astype(np.int64), found


def freeze_point(
    labels: Sequence[str], truth: npt.NDArray[np.int64], mine: FloatArray
) -> OperatingPoint:
    """Return the point that the same truth with other answers, as validation, would freeze."""
    others = np.roll(mine, 4 * len(labels), axis=0)
    positive = [label for label in labels if label in ("akiec", "bcc", "mel", "malignant")]
    return freeze_operating_point(truth, others, labels, positive or labels[:1], "youden")


@dataclass(frozen=True, slots=True)
class Measured:
    """What evaluation and benchmark found; shared by tests, so none may change it."""

    rows: list[EngineRow]
    metrics: dict[str, EngineEvaluation]
    gate: list[GateVerdict]
    confidences: dict[str, list[float]]


@cache
def measure(
    labels: tuple[str, ...],
    targets: tuple[str, ...],
    noise: float,
    max_drop: float,
    with_parents: bool,
    answers: str,
) -> Measured:
    """Score the engines, compare them with their parents and judge them."""
    truth, probabilities = make_probabilities(labels, targets, noise, answers)
    found = Measured([], {}, [], {})
    points = {t: freeze_point(labels, truth, probabilities[t]) for t in targets}
    judged = []
    for number, target in enumerate(targets):
        mine = probabilities[target]
        evaluation = EngineEvaluation(
            **evaluate_predictions(truth, mine, labels, GROUPS, resamples=RESAMPLES).field_values(),
            target=target,
            critical=labels[0],
            subset="test",
            operating_point=evaluate_operating_point(
                points[target], truth, mine, labels, GROUPS, resamples=RESAMPLES
            ),
            temperature=evaluate_temperature(1.3, truth, mine, labels, GROUPS, resamples=RESAMPLES),
        )
        backend, _, precision = target.partition(":")
        latency = LATENCIES[number]
        emulated = backend == "tensorrt"
        parent = find_reference(EngineName(target), set(targets)) if with_parents else None
        versus = None
        if parent is not None:
            theirs = probabilities[parent]
            comparison = compare_predictions(
                truth, theirs, mine, labels, GROUPS, resamples=RESAMPLES,
                points=(points[parent], points[target]),
            )  # fmt: skip
            ratio = LATENCIES[targets.index(parent)] / latency
            versus = ParentComparison(
                **comparison.field_values(),
                parent=parent,
                speedup=None if emulated else ratio,
                speedup_interval=None if emulated else (0.98 * ratio, 1.02 * ratio),
                size_ratio=3.78 if precision == "int8" else 1.0,
            )
            if precision != "float32":
                answers = Predictions(truth, mine, labels, GROUPS, labels[:1], theirs)
                judged.append(GateInput(target, parent, answers))
        found.rows.append(
            EngineRow(
                engine=f"engine-{number:012d}",
                target=target,
                backend=backend,
                precision=precision,
                threads=1,
                latency_ms=Latency(latency, 1.2 * latency, 100, 0.9 * latency),
                scenarios=make_scenarios(latency, versus),
                path=make_path(latency),
                load=Load(
                    first_ms=650.0,
                    again_ms=(4.0, 4.2, 4.4),
                    idle_bytes=43_000_000,
                    resident_bytes=50_000_000,
                    peak_bytes=51_000_000,
                ),
                work=None
                if backend == "keras"
                else Work(
                    macs=85_400_000, bytes_moved=1_200_000 if precision == "int8" else 4_900_000
                ),
                profile=make_profile(target) if target == "tflite:int8" else None,
                deflated_bytes=400_000,
                size_bytes=433_213 if precision == "int8" else 1_638_177,
                peak_memory_bytes=51_000_000,
                execution=(Execution(*EMULATED),) if emulated else (),
                versus_parent=versus,
            ).with_scores(evaluation)
        )
        found.metrics[target] = evaluation
        found.confidences[target] = [float(p) for p in mine.max(axis=1)]
    verdicts = judge_engines(judged, [write_gate(max_drop)], EvaluateRule(resamples=RESAMPLES))
    found.gate.extend(verdicts)
    return found


def make_scenarios(latency: float, versus: ParentComparison | None) -> tuple[ScenarioTiming, ...]:
    """Return the scenarios of an engine that two threads make 1.6 times as fast."""
    setups = (("single_stream", 1, 1, 1), ("multi_thread", 2, 1, 1), ("offline", 1, 2, 64))
    found = []
    for scenario, threads, streams, batch in setups:
        median = batch * latency / (1.6 if scenario != "single_stream" else 1)
        found.append(
            ScenarioTiming(
                scenario=scenario,
                threads=threads,
                streams=streams,
                batch=batch,
                latency_ms=Latency(median, 1.2 * median, 640, 0.9 * median, 1.5 * median),
                images_per_second=1000 * batch / median,
                rounds=20,
                warmup=30,
                spread=0.04,
                others_load=0.01,
                attempts=1,
                speedup=versus and versus.speedup,
                speedup_interval=versus and versus.speedup_interval,
            )
        )
    return tuple(found)


def make_rounds(seed: int, latency: float) -> list[list[float]]:
    """Return 20 rounds of 32 latencies."""
    samples = latency * (0.9 + np.random.default_rng(seed).gamma(2.0, 0.05, (20, 32)))
    return [list(map(float, samples_of_round)) for samples_of_round in samples]


def make_profile(target: str) -> LayerProfile:
    """Return a profile of six layers, of which the second is the slowest."""
    generator = np.random.default_rng(4)
    operators, costs = [], []
    for number, median in enumerate((0.044, 0.062, 0.031, 0.016, 0.008, 0.003), start=1):
        name = f"imported/block{number}_conv/Conv2D"
        samples = median * (0.95 + generator.gamma(2.0, 0.03, 20))
        operators.append(OperatorTimes(name, "CONV_2D", tuple(map(float, samples))))
        costs.append(OperatorCost(name, 20_000_000 // number, 100_000))
    profile = OperatorProfile("each operator alone", tuple(operators), (0.18,) * 20)
    return summarize_layers(target, profile, costs, threads=1)


def make_path(latency: float) -> PathTiming:
    """Return a path on which decoding takes longer than a small network."""
    whole = 3.3 + latency
    return PathTiming(
        decode=2.4,
        resize=0.9,
        inference=latency,
        whole=Latency(whole, 1.2 * whole, 160, 0.9 * whole),
        n=160,
        pictures="JPEG of 600x450 pixels, quality 95, in the file cache",
    )


def write_gate(margin: float) -> str:
    """Return the sample's gate."""
    return f"balanced_accuracy >= parent - {margin} @ 0.95"


def make_report_data(
    labels: Sequence[str] = SEVEN,
    critical: str = "mel",
    targets: Sequence[str] = TARGETS,
    *,
    noise: float = 0.3,
    max_drop: float = 0.5,
    with_parents: bool = True,
    answers: str = "useful",
    **changes: Any,
) -> ReportData:
    """Return a report's data; `changes` replace whole fields of it."""
    measured = measure(tuple(labels), tuple(targets), noise, max_drop, with_parents, answers)
    fields: dict[str, Any] = {
        "name": "sample",
        "description": "A made-up run.",
        "benchmark": Benchmark(
            recipe="sample",
            task="seven_class",
            labels=tuple(labels),
            critical=critical,
            image_size=64,
            split_hash="5" * 64,
            threads=1,
            rows=tuple(measured.rows),
            gates=(write_gate(max_drop),),
            gate=tuple(measured.gate),
            machine=Machine(
                processor="A CPU",
                architecture="x86_64",
                cores=2,
                memory_bytes=25_276_510_208,
                system="Linux 6.1",
                python="3.11.7",
                int8_features=("avx2", "avx_vnni"),
            ),
            peaks=(
                Peak(threads=1, float32_gops=350.0, int8_gops=1240.0, bandwidth_gbs=20.0),
                Peak(threads=2, float32_gops=690.0, int8_gops=2430.0, bandwidth_gbs=15.0),
            ),
            energy_lacks="the system has no /sys/class/powercap (RAPL)",
            conditions=(
                Conditions(
                    governors=("performance",),
                    frequency_mhz=2300.0,
                    load=0.1,
                    unknown={"temperature_c": "no thermal zone"},
                ),
                Conditions(
                    governors=("performance",),
                    frequency_mhz=2290.0,
                    load=1.1,
                    unknown={"temperature_c": "no thermal zone"},
                ),
            ),
        ),
        "metrics": measured.metrics,
        "engines": {target: make_engine(target) for target in targets},
        "curves": make_curves(critical),
        "model": make_facts(),
        "training_seconds": 4000.0,
        "recipe": {
            **read_recipe("demo", ("train.epochs=14",)).model_dump(mode="json"),
            "name": "sample",
            "data": {"source": "ham10000", "path": "/home/somebody/pictures"},
            "gate": [write_gate(max_drop)],
        },
        "split": make_split(labels),
        "inspection": make_inspection(),
        "calibration": make_calibration(labels),
        "lineage": {
            "model": ArtefactOrigin("model-0123456789ab", "c" * 64, {"images": "images-1"})
        },
        "images": tuple(
            JudgedImage(f"ISIC_{row:07d}", GROUPS[row], f"HAM_{row // 2:07d}")
            for row in range(IMAGES)
        ),
        "latencies": {t: make_rounds(n, LATENCIES[n]) for n, t in enumerate(targets)},
        "confidences": measured.confidences,
        "versions": {"tensorflow": ("2.20.0", "2.21.0")},
    }
    return ReportData(**{**fields, **changes})


def make_external(data: ReportData, **changes: Any) -> dict[str, ExternalEvaluation]:
    """Return what the evaluations found, as if it had been on other images."""
    known: dict[str, Any] = {"recipe": "", "lesion_ids_known": True, "split_known": True}
    return {
        target: ExternalEvaluation(
            **{**evaluation.field_values(), "critical": "mel", **known, **changes}
        )
        for target, evaluation in data.metrics.items()
    }


def make_engine(target: str) -> EngineFacts:
    """Return the facts of a converted engine."""
    backend, _, precision = target.partition(":")
    int8 = precision == "int8"
    checks = [Check("mean probability drift", 3.7e-8, 0.001, at_least=False)]
    checks += [Check("share of int8 weights", 0.9974, 0.9, at_least=True)] if int8 else []
    worst = (LayerSignal("logits/BiasAdd", 19.96), LayerSignal("block2/Relu", 30.1))
    return EngineFacts(
        target=target,
        backend=backend,
        precision=precision,
        file="engine",
        size_bytes=1,
        labels=(),
        split_hash="",
        float_operators=("SOFTMAX -> out:0", "CONV_2D -> in:0") if int8 else (),
        quantization=Quantization(weight_bits=7, activation_bits=8, corrected_biases=3)
        if int8
        else Quantization(),
        signal=SignalSummary(16, 12, 33.25, worst) if int8 else None,
        structure=EngineStructure(
            weight_bytes={"int8": 407_712, "float32": 16} if int8 else {"float32": 1_697_940},
            operators={"int8": 11, "float32": 1} if int8 else {"float32": 15},
        ),
        verification=Verification(103, tuple(checks), Agreement(256, 0.9766, 0.0, 0.0, 0.0)),
    )


def make_curves(critical: str) -> list[dict[str, float]]:
    """Return six epochs."""
    return [
        {
            "epoch": epoch,
            "loss": 2.0 / epoch,
            "balanced_accuracy": 0.8 - 0.3 / epoch,
            "accuracy": 0.82 - 0.3 / epoch,
            "macro_auc": 0.95 - 0.2 / epoch,
            "log_loss": 2.2 / epoch,
            f"recall[{critical}]": 0.7 - 0.5 / epoch,
        }
        for epoch in range(1, 7)
    ]


def make_split(
    labels: Sequence[str], *, lesion_ids_known: bool = True, **changes: Any
) -> DealtSplit:
    """Return a split; `changes` replace whole fields of it."""
    truth, _ = make_probabilities(labels, (), 0.0)
    judged = dict(zip(labels, np.bincount(truth).tolist(), strict=True))
    images = {subset: {name: factor * n for name, n in judged.items()} for subset, factor in SHARES}
    split = DealtSplit(
        split_hash="5" * 64,
        task=Task("seven_class", "", tuple(labels), labels[0], {name: name for name in labels}),
        lesion_ids_known=lesion_ids_known,
        licence="CC BY-NC 4.0",
        citation="Tschandl et al. (2018). doi:10.1038/sdata.2018.161",
        images=images,
        lesions={s: {name: n // 2 for name, n in images[s].items()} for s in SUBSETS},
    )
    return replace(split, **changes)


def make_inspection(**changes: Any) -> Inspection:
    """Return an inspection that found something of everything; `changes` replace fields."""
    inspection = Inspection(
        source="ham10000",
        licence="CC BY-NC 4.0",
        citation="Tschandl et al. (2018). doi:10.1038/sdata.2018.161",
        lesion_ids_known=True,
        images=10_015,
        lesions=7470,
        patients=0,
        lesions_with_several_images=1956,
        lesions_with_several_diagnoses=2,
        images_by_diagnosis={},
        lesions_by_diagnosis={},
        broken=(BrokenImage("ISIC_0000001", "truncated"),),
        missing_files=("ISIC_0000002",),
        unlisted_files=1,
        identical_pixels=(("ISIC_0000003", "ISIC_0000004"),),
        identical_groups=1,
        contradictions=Contradictions(0, ()),
        contradictions_of_copies=Contradictions(0, ()),
        crowds=(),
        near_duplicates=12,
        near_duplicates_across_lesions=3,
        near_duplicates_listed=12,
        near_duplicate_distance=16,
        sizes={"600x450": 10_015},
        age=Ages(9958, (40.0, 50.0, 65.0)),
        sex={"male": 5406, "female": 4552, "unknown": 57},
        site={"back": 2192, "face": 745},
    )
    return replace(inspection, **changes)


def make_calibration(labels: Sequence[str], **changes: Any) -> DrawnList:
    """Return a calibration list; `changes` replace whole fields of it."""
    drawn = DrawnList(
        images=15 * len(labels),
        images_by_label=dict.fromkeys(labels, 15),
        images_by_site={},
        images_by_brightness={},
        brightness_edges=(),
        sites_of_training=1,
        draw="balanced",
        cover=(),
        list=None,
        seed=7,
        observer="min_max",
        split_hash="5" * 64,
        disjoint_from={"validation": 103, "test": 100},
    )
    return replace(drawn, **changes)
