"""Engines of a model, and the loss by int8: per layer, and per calibration draw."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from lesiontk.backends import BACKENDS, list_targets, parse_target
from lesiontk.errors import DataError, GateFailedError, LesionTKError, UsageError
from lesiontk.records import Artefact
from lesiontk.stage import StepId
from lesiontk.store import Store
from lesiontk.workflow.parallel_conversion import (
    choose_background_targets,
    converting_in_background,
    shared_engines,
)
from lesiontk.workflow.resume import continue_from
from lesiontk.workflow.runner import build_step


def convert_model(
    store: Store,
    model: Artefact,
    targets: Sequence[str],
    overrides: Iterable[str] = (),
    *,
    background: bool = True,
    refused: dict[str, LesionTKError] | None = None,
) -> dict[str, Artefact]:
    """Convert a model to the targets and to the engines that they are derived from.

    A target that is not possible for this model is an error. With `refused`, its error is added
    there under the target's name and the others are made. For a large model, unless `background` is
    False, the targets of a second back end are converted in a background process.
    """
    overrides = tuple(overrides)
    plan, done = continue_from(store, model, targets, overrides)

    def build(chosen: Iterable[str]) -> dict[str, Artefact]:
        made = {}
        for target in chosen:
            try:
                made[target] = build_step(plan, StepId("engine", target), store, done)
            except (DataError, GateFailedError) as error:
                if refused is None:
                    raise
                refused[target] = error
        return made

    others = choose_background_targets(model, targets) if background else ()
    if others:
        with converting_in_background(store, model, others, overrides) as start:
            for name in shared_engines(plan, targets, others):
                build_step(plan, name, store, done)
            start()
            build(target for target in targets if target not in others)
    return build(targets)


def quantize_model(
    store: Store, model: Artefact, precisions: Sequence[str], overrides: Iterable[str] = ()
) -> tuple[dict[str, Artefact], dict[str, LesionTKError]]:
    """Return the engines of these precisions on every back end of this machine, and the refused.

    Both are by target. A back end without an int8 form of an operator rejects the model, and the
    other engines are made; `find_fault` selects the error of the call.
    """
    opt_in = {name for name, backend in BACKENDS.items() if backend.info.opt_in}
    targets = [
        target
        for target in list_targets()
        if (parts := parse_target(target))[1] in precisions and parts[0] not in opt_in
    ]
    refused: dict[str, LesionTKError] = {}
    return convert_model(store, model, targets, overrides, refused=refused), refused


def find_fault(
    engines: Mapping[str, Artefact], refused: Mapping[str, LesionTKError]
) -> LesionTKError | None:
    """Return the error of a call that quantized a model: an engine that differs from its model.

    A target that is not possible is an error only if no engine was made.
    """
    wrong = [error for error in refused.values() if isinstance(error, GateFailedError)]
    return next(iter(wrong or (() if engines else refused.values())), None)


def measure_sensitivity(
    store: Store, model: Artefact, backend: str, overrides: Iterable[str] = ()
) -> Artefact:
    """Measure the effect of int8 on each layer, and find those that stay in float to meet the
    gate."""
    plan, done = continue_from(store, model, [f"{backend}:mixed"], overrides)
    return build_step(plan, StepId("sensitivity", backend), store, done)


def measure_stability(
    store: Store, model: Artefact, target: str, draws: int, overrides: Iterable[str] = ()
) -> Artefact:
    """Make an int8 engine from further calibration draws, and compare each with the recipe's."""
    if parse_target(target)[1] != "int8":
        raise UsageError(
            f"{target} is not calibrated to int8; expected a target such as tflite:int8."
        )
    changes = [*overrides, f"stability.draws={draws}"]
    plan, done = continue_from(store, model, [target], changes)
    return build_step(plan, StepId("stability", target), store, done)
