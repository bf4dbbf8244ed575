"""What every training leaves behind: the model with its description, its curves, its facts."""

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
from lesiontk.data.images import ImageSet
from lesiontk.data.tasks import definition_of
from lesiontk.records import MAY_HAVE_SEEN_TEST, MODEL_FILE, Artefact, EngineSpec
from lesiontk.stage import Context, StageOutput
from lesiontk.train.checkpoints import TrainingState
from lesiontk.train.curves import copy_events, plot_curves
from lesiontk.train.loop import score_probabilities
from lesiontk.train.recall_constraint import measure_recalls

LEAKY = " Trained and judged on a split that leaks lesions: its figures flatter it."
SEEN_UNKNOWN = " Whether it was trained on the images it is judged on is not known."


def write_outcome(
    model: Any,
    state: TrainingState,
    images: ImageSet,
    source: Artefact,
    context: Context,
    *,
    started: float,
    facts: Mapping[str, Any],
) -> StageOutput:
    """Write model, curves and log into ``context.directory`` and describe them.

    `source` is the artefact of the images, `started` when this process began, in seconds of
    ``time.perf_counter``.
    """
    spec, described = describe_model(model, images, source, context, facts)
    save_model(model, spec, context.directory / MODEL_FILE)
    answers = _ask_model(images, context)
    with (context.directory / "curves.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(state.curves[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(state.curves)
    plot_curves(state.curves, state.best_epoch, context.directory / "curves.png")
    copy_events(context.scratch / "tensorboard", context.directory / "tensorboard")
    best = state.curves[state.best_epoch - 1]
    return StageOutput(
        facts={
            **described,
            "epochs": state.epoch,
            "best_epoch": state.best_epoch,
            "validation": {
                "n": len(images.indices("validation")),
                **{name: value for name, value in best.items() if name != "epoch"},
            },
            "recalls": recall_facts(answers, images),
            **recall_constraint_facts(images.labels, state.keep_recalls, state.shifts),
            **facts,
        },
        auxiliary=("tensorboard", "curves.png", REFERENCE_OUTPUTS),
        earlier_seconds=max(0.0, state.seconds - (time.perf_counter() - started)),
    )


def recall_facts(answers: ReferenceOutputs, images: ImageSet) -> dict[str, float]:
    """Return label -> recall on validation, as the constraint of smaller networks."""
    recalls = measure_recalls(images.targets[images.indices("validation")], answers.outputs)
    return {
        label: float(recall)
        for label, recall in zip(images.labels, recalls, strict=True)
        if math.isfinite(recall)
    }


def recall_constraint_facts(
    labels: Sequence[str], wanted: Mapping[str, float], shifts: Sequence[float]
) -> dict[str, Any]:
    """Return the recalls that were to be kept, and by how much biases were raised for it."""
    if not wanted:
        return {}
    raised = {label: shift for label, shift in zip(labels, shifts, strict=True) if shift}
    return {"recall_constraint": {"wanted": dict(wanted), "bias_raised": raised}}


def write_untrained(
    model: Any,
    images: ImageSet,
    source: Artefact,
    context: Context,
    *,
    facts: Mapping[str, Any],
) -> StageOutput:
    """Write a model that was not trained here into ``context.directory``, as `write_outcome`."""
    spec, described = describe_model(model, images, source, context, facts)
    save_model(model, spec, context.directory / MODEL_FILE)
    answers = _ask_model(images, context)
    scores = score_probabilities(answers.outputs, images)
    return StageOutput(
        {
            **described,
            "epochs": 0,
            "best_epoch": 0,
            "validation": {"n": len(images.indices("validation")), **scores},
            "recalls": recall_facts(answers, images),
            **facts,
        },
        auxiliary=(REFERENCE_OUTPUTS,),
    )


def _ask_model(images: ImageSet, context: Context) -> ReferenceOutputs:
    """Run the written model on validation; its engines are compared with these outputs."""
    rows = images.indices("validation")
    with context.progress.task("asking the model about validation", None):
        answers = run_engine(context.directory / MODEL_FILE, images.pixels[rows], context.threads)
    write_reference_outputs(answers, rows, context.directory)
    return answers


def describe_model(
    model: Any, images: ImageSet, source: Artefact, context: Context, facts: Mapping[str, Any]
) -> tuple[EngineSpec, dict[str, Any]]:
    """Return what the model's file says of itself, and the facts that every model has.

    `facts` are those of its own: what may have seen the test images says so wherever it goes.
    """
    spec = EngineSpec(
        labels=images.labels,
        preprocessing=images.preprocessing,
        task=images.task,
        backend="keras",
        precision="float32",
        recipe=context.recipe,
        split_hash=images.split_hash,
        licence=str(source.facts["licence"]),
        extra={"task_definition": definition_of(source.facts)},
    )
    if source.facts.get("leaky"):  # images that an early lesiontk prepared do not say
        spec = replace(spec, notice=spec.notice + LEAKY)
    if facts.get(MAY_HAVE_SEEN_TEST):
        extra = {**spec.extra, MAY_HAVE_SEEN_TEST: True}
        spec = replace(spec, notice=spec.notice + SEEN_UNKNOWN, extra=extra)
    return spec, {
        "parameters": int(model.count_params()),
        "labels": list(images.labels),
        "task": images.task,
        "critical": images.critical,
        "preprocessing": dict(source.facts["preprocessing"]),
        "split_hash": images.split_hash,
    }
