"""Stage: conversion of a model, or of an engine of another precision, to a verified engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from lesiontk.backends import BACKENDS, parse_target
from lesiontk.backends.backend import PrecisionInfo, QuantizationPlan
from lesiontk.backends.engine_facts import EngineFacts
from lesiontk.backends.keras.backend import KerasBackend
from lesiontk.backends.learned_ranges import LEARNED
from lesiontk.backends.quantized_tensors import FILE as TENSORS
from lesiontk.backends.quantized_tensors import list_tensor_rows, write_tensor_rows
from lesiontk.backends.reference_outputs import (
    REFERENCE_OUTPUTS,
    ReferenceOutputs,
    engine_file,
    load_or_run,
    run_engine,
    write_reference_outputs,
)
from lesiontk.calibration.drawn_list import DrawnList
from lesiontk.calibration.ranges import MeasuredRanges, TensorRange
from lesiontk.compress.sensitivity import Sensitivity
from lesiontk.data.images import ImageSet, open_images
from lesiontk.document import write_record, write_table
from lesiontk.errors import GateFailedError
from lesiontk.evaluate.signal_to_noise import LayerSignal, measure_signal
from lesiontk.evaluate.verification import (
    GOLDEN,
    UNEXPLAINED,
    Verification,
    classify_precision,
    verify_outputs,
)
from lesiontk.recipe import QuantizeRule, VerifyRule
from lesiontk.records import Artefact, ModelFacts
from lesiontk.stage import Context, Stage, StageConfig, StageInfo, StageOutput
from lesiontk.stages.calibrate import calibration_rows
from lesiontk.stages.engine_tools import tools_of_conversion
from lesiontk.stages.fake_quant_outputs import (
    OutputPair,
    explain_other_rounding,
    run_fake_quantized,
)
from lesiontk.stages.qat import LearnedRounding
from lesiontk.stages.ranges import read_measured

LAYERS = "layers.csv"
"""The signal-to-noise ratio of every layer, in the parent's order."""


class ConvertConfig(StageConfig):
    """The target ``backend:precision``, its quantization, and its tolerances against its parent.

    `quantize` is None if the target is not calibrated.
    """

    target: str
    quantize: QuantizeRule | None = None
    verify: VerifyRule


class ConvertStage(Stage):
    """Produces an engine file with its description, and the comparison with its parent.

    It is derived from its source, a model or an engine of another precision, and compared with the
    model's outputs, which were stored after training.
    """

    info: ClassVar[StageInfo] = StageInfo(
        name="convert",
        version=9,
        accepts={
            "source": "model|engine",
            "model": "model",
            "images": "images",
            "calibration": "calibration",
            "ranges": "ranges",
            "sensitivity": "sensitivity",
        },
        produces="engine",
        config=ConvertConfig,
        schema_version=EngineFacts.SCHEMA,
        tools=("numpy",),
    )

    def list_tools(self, config: ConvertConfig, parents: Mapping[str, Artefact]) -> tuple[str, ...]:
        model = parents.get("model", parents["source"])
        fake_quantized = config.target.endswith(":int8") and LEARNED in model.manifest.files
        keras = KerasBackend().list_runtime_tools() if fake_quantized else ()
        return (*self.info.tools, *tools_of_conversion(config.target), *keras)

    def run(
        self, parents: Mapping[str, Artefact], config: ConvertConfig, context: Context
    ) -> StageOutput:
        name, precision = parse_target(config.target)
        backend = BACKENDS.get(name)()
        source = engine_file(parents["source"])
        images = open_images(parents["images"])
        plan = None
        measured = read_measured(parents["ranges"]) if "ranges" in parents else {}
        if "calibration" in parents:
            rule = config.quantize or QuantizeRule()
            info = backend.info.precisions[precision]
            plan = plan_quantization(parents, images, measured, rule, info)
        rows = verification_rows(images, config.verify, precision)
        parent_outputs = parents.get("model", parents["source"])
        expected = load_or_run(parent_outputs, parents["images"], rows, context.threads)
        spec = replace(expected.spec, backend=name, precision=precision)
        with context.progress.task(f"converting to {config.target}", None):
            record = backend.convert(source, precision, spec, plan, context.directory)
        path = context.directory / record.file
        received = run_engine(path, images.pixels[rows], context.threads)
        quantization = record.quantization
        rounded = None
        if plan is not None and precision == "int8" and LEARNED in parent_outputs.manifest.files:
            learned = parent_outputs.read_facts(ModelFacts).read_change(LearnedRounding)
            reason = explain_other_rounding(learned.scheme, name, plan)
            if reason is None:
                rounded = run_fake_quantized(parent_outputs, path, images, context.threads)
            else:
                quantization = replace(quantization, otherwise_than_trained=reason)
        verification = compare_outputs(expected, received, path, config.verify, rounded)
        write_reference_outputs(received, rows, context.directory)
        tensors = backend.list_quantized_tensors(path)
        if tensors:
            write_tensor_rows(context.directory / TENSORS, list_tensor_rows(tensors, measured))
        signal = None
        shown = images.pixels[spread_rows(rows, config.verify.signal_images)]
        if len(shown) and _is_comparable(parents["source"], config.target):
            measured_signal = measure_signal(
                *backend.read_both(source, path), (x[np.newaxis] for x in shown)
            )
            write_table(context.directory / LAYERS, LayerSignal, measured_signal.layers)
            signal = measured_signal.summarize()
        facts = EngineFacts(
            target=config.target,
            backend=name,
            precision=precision,
            file=record.file,
            size_bytes=path.stat().st_size,
            labels=spec.labels,
            split_hash=spec.split_hash,
            float_operators=record.float_operators,
            quantization=quantization,
            structure=backend.inspect(path),
            verification=verification,
            signal=signal,
            examination=record.examination,
        )
        write_record(context.directory / "verification.json", facts)
        if not verification.passed:
            raise GateFailedError(_explain_failure(config.target, verification))
        return StageOutput(facts.to_document(), auxiliary=(REFERENCE_OUTPUTS,))


def _explain_failure(target: str, verification: Verification) -> str:
    rounding_note, remedy = "", "another calibration.observer or more calibration.images"
    if any(check.name == UNEXPLAINED and not check.passed for check in verification.checks):
        remedy = "another precision, or another back end"
    elif verification.rounded_agreement:
        rounding_note = f", {verification.rounded_agreement.n} training images for the rounding"
        remedy = "more epochs of qat"  # its ranges are learned
    judged = [check.name for check in verification.checks if not check.passed]
    if judged == [GOLDEN]:
        key = f"verify.max_mean_drift_{classify_precision(target.partition(':')[2])}"
        remedy = (
            f"a higher {key}, if the drift is acceptable (the golden images are drawn and show no "
            f"skin; on validation the engine agrees), or {remedy}"
        )
    return (
        f"{target} does not match its model: {verification.describe_failures()} (n = "
        f"{verification.n} validation images{rounding_note}). The engine is next to "
        f"failed.json; try {remedy}."
    )


def plan_quantization(
    parents: Mapping[str, Artefact],
    images: ImageSet,
    measured: Mapping[str, TensorRange],
    rule: QuantizeRule,
    info: PrecisionInfo,
) -> QuantizationPlan:
    """Return the quantization plan of a precision, with the calibration among `parents`.

    It contains `measured`, the ranges of the source's tensors, if the back end exposes them, and
    for a mixed precision the layers that stay in float. Raises `GateFailedError` if the search for
    them found none.
    """
    learned = "ranges" in parents and parents["ranges"].read_facts(MeasuredRanges).learned > 0
    kept: tuple[str, ...] = ()
    if "sensitivity" in parents:
        searched = parents["sensitivity"].read_facts(Sensitivity)
        if searched.kept is None:
            raise GateFailedError(
                f"no mixed engine meets the gate: {searched.outcome}. `lesiontk report` shows "
                "the effect of int8 on each layer."
            )
        kept = searched.kept
    return QuantizationPlan(
        images.pixels[calibration_rows(parents["calibration"], images)],
        parents["calibration"].read_facts(DrawnList).observer,
        float_layers=frozenset(kept),
        ranges={name: (tensor.low, tensor.high) for name, tensor in measured.items()} or None,
        # Weights from quantization-aware training need no bias correction.
        correct_bias=rule.correct_bias and not learned,
        reduce_range=rule.reduce_range and info.saturates,
    )


def verification_rows(images: ImageSet, rule: VerifyRule, precision: str) -> NDArray[np.int64]:
    """Return the validation images for verification, balanced over the classes."""
    count = rule.float_images if precision == "float32" else rule.images
    return images.draw_stratified("validation", min(count, rule.images), seed=0)


def spread_rows(rows: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Return up to `count` of the rows, evenly spread."""
    return rows[np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(np.int64)]


def _is_comparable(source: Artefact, target: str) -> bool:
    """Return whether an engine was derived, layer by layer, from one of the same back end."""
    name = target.partition(":")[0]
    same = source.kind == "engine" and source.read_facts(EngineFacts).backend == name
    return same and BACKENDS.get(name).info.exposes_activations


def compare_outputs(
    expected: ReferenceOutputs,
    received: ReferenceOutputs,
    child: Path,
    rule: VerifyRule,
    rounded: OutputPair | None = None,
) -> Verification:
    """Compare an engine's outputs with its parent's; `rounded` is as in `verify_outputs`."""
    spec = received.spec
    backend = BACKENDS.get(spec.backend)()
    return verify_outputs(
        expected.outputs,
        received.outputs,
        precision=spec.precision,
        structure=backend.inspect(child),
        unexplained=backend.list_unexplained(child, spec.precision),
        rule=rule,
        same_description=all(
            getattr(spec, name) == getattr(expected.spec, name)
            for name in ("labels", "preprocessing", "task", "split_hash")
        ),
        golden=(expected.golden, received.golden),
        rounded=rounded,
    )
