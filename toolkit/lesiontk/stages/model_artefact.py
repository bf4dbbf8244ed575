"""The artefact of every training: the model with its description, its curves and its facts."""

from __future__ import annotations

import csv
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from lesiontk.backends.keras.backend import save_model
from lesiontk.backends.reference_outputs import (
    REFERENCE_OUTPUTS,
    ReferenceOutputs,
    run_engine,
    write_reference_outputs,
)
from lesiontk.compress.model_history import ModelOrigin
from lesiontk.data.images import ImageSet, PreparedImages
from lesiontk.records import (
    MAY_HAVE_SEEN_TEST,
    MODEL_FILE,
    NOTICE,
    Artefact,
    EngineSpec,
    ModelFacts,
    RecallConstraint,
)
from lesiontk.stage import Context, StageOutput
from lesiontk.train.checkpoints import TrainingState
from lesiontk.train.curves import copy_events, plot_curves
from lesiontk.train.loop import score_probabilities
from lesiontk.train.recall_constraint import measure_recalls

LEAKY = " Trained and evaluated on a split that leaks lesions: its results are too optimistic."
SEEN_UNKNOWN = " It may have been trained on its test images."


def write_outcome(
    model: Any,
    state: TrainingState,
    images: ImageSet,
    source: Artefact,
    context: Context,
    origin: ModelOrigin,
    *,
    started: float,
) -> StageOutput:
    """Write model, curves and log into ``context.directory`` and describe them.

    `source` is the artefact of the images, `started` when this process began, in seconds of
    ``time.perf_counter``.
    """
    answers = _write_model(model, images, source, context, origin)
    with (context.directory / "curves.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(state.curves[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(state.curves)
    plot_curves(state.curves, state.best_epoch, context.directory / "curves.png")
    copy_events(context.scratch / "tensorboard", context.directory / "tensorboard")
    facts = replace(
        _describe_model(model, images, origin, answers),
        epochs=state.epoch,
        best_epoch=state.best_epoch,
        validation=state.best_scores(len(answers.outputs)),
        recall_constraint=constrain_recalls(images.labels, state.keep_recalls, state.shifts),
    )
    return StageOutput(
        facts.to_document(),
        auxiliary=("tensorboard", "curves.png", REFERENCE_OUTPUTS),
        earlier_seconds=max(0.0, state.seconds - (time.perf_counter() - started)),
    )


def constrain_recalls(
    labels: Sequence[str], wanted: Mapping[str, float], shifts: Sequence[float]
) -> RecallConstraint | None:
    """Return the required recalls, and the bias changes that achieve them."""
    if not wanted:
        return None
    raised = {label: shift for label, shift in zip(labels, shifts, strict=True) if shift}
    return RecallConstraint(wanted, raised)


def write_untrained(
    model: Any,
    images: ImageSet,
    source: Artefact,
    context: Context,
    origin: ModelOrigin,
    recall_constraint: RecallConstraint | None = None,
) -> StageOutput:
    """Write a model that was not trained here into ``context.directory``, as `write_outcome`."""
    answers = _write_model(model, images, source, context, origin)
    facts = _describe_model(model, images, origin, answers)
    facts = replace(facts, recall_constraint=recall_constraint)
    return StageOutput(facts.to_document(), auxiliary=(REFERENCE_OUTPUTS,))


def _write_model(
    model: Any, images: ImageSet, source: Artefact, context: Context, origin: ModelOrigin
) -> ReferenceOutputs:
    """Write the model and its outputs on validation, the reference of its engines."""
    prepared = source.read_facts(PreparedImages)
    spec = describe_model(images, prepared, context.recipe, origin)
    save_model(model, spec, context.directory / MODEL_FILE)
    rows = images.indices("validation")
    with context.progress.task("running the model on validation", None):
        answers = run_engine(context.directory / MODEL_FILE, images.pixels[rows], context.threads)
    write_reference_outputs(answers, rows, context.directory)
    return answers


def describe_model(
    images: ImageSet, prepared: PreparedImages, recipe: str, origin: ModelOrigin
) -> EngineSpec:
    """Return the description in the model's file.

    It states whether the model may have seen the test images, or was evaluated on a leaky split.
    """
    extra: dict[str, Any] = {"task_definition": prepared.task.to_document()}
    notice = NOTICE
    if prepared.leaky:
        notice += LEAKY
    if origin.may_have_seen_test:
        extra[MAY_HAVE_SEEN_TEST] = True
        notice += SEEN_UNKNOWN
    return EngineSpec(
        labels=images.labels,
        preprocessing=images.preprocessing,
        task=images.task,
        backend="keras",
        precision="float32",
        recipe=recipe,
        split_hash=images.split_hash,
        licence=prepared.licence,
        notice=notice,
        extra=extra,
    )


def _describe_model(
    model: Any, images: ImageSet, origin: ModelOrigin, answers: ReferenceOutputs
) -> ModelFacts:
    """Return the facts of a model that was not trained, of its outputs on validation."""
    rows = images.indices("validation")
    recalls = measure_recalls(images.targets[rows], answers.outputs)
    return ModelFacts(
        stage=origin.stage,
        architecture=origin.architecture,
        change=origin.change.to_document() if origin.change else {},
        history=origin.history,
        may_have_seen_test=origin.may_have_seen_test,
        parameters=int(model.count_params()),
        epochs=0,
        best_epoch=0,
        validation=score_probabilities(answers.outputs, images),
        recalls={
            label: float(recall)
            for label, recall in zip(images.labels, recalls, strict=True)
            if math.isfinite(recall)
        },
        labels=images.labels,
        task=images.task,
        critical=images.critical,
        preprocessing=images.preprocessing,
        split_hash=images.split_hash,
    )
