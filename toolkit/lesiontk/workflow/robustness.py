"""Engines of a workspace on corrupted test images, beside their full-precision parents."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from lesiontk.backends.engine_facts import EngineFacts
from lesiontk.bench.benchmark import FULL_PRECISION
from lesiontk.records import Artefact
from lesiontk.store import Store
from lesiontk.workflow.benchmark import PARENT
from lesiontk.workflow.lineage import derivation_of, intact, model_of, resolve_latest
from lesiontk.workflow.plan_engines import robustness_step
from lesiontk.workflow.resume import continue_from
from lesiontk.workflow.runner import build_step

DEFAULT_IMAGES = 300


def resolve_comparable(store: Store, reference: str) -> str:
    """Return the reference of an engine; of the latest ones that of one of reduced precision.

    Raises `UsageError` if there is none.
    """
    return resolve_latest(
        store,
        reference,
        lambda facts: facts.precision != FULL_PRECISION,
        f"no engine of reduced precision in {store.workspace} fits {reference!r}",
    )


def measure_robustness(
    store: Store,
    engine: Artefact,
    overrides: Iterable[str] = (),
    *,
    images: int | None = None,
    corruptions: Iterable[str] = (),
    data: Path | None = None,
) -> Artefact:
    """Compare an engine with its parent on `images` corrupted test images of its own split.

    `images` and `corruptions` are by default those of the recipe, and then `DEFAULT_IMAGES` and
    all. `data` is the folder of the images, by default that of the training. Raises `UsageError`
    for an engine without a parent, `DataError` if the images are gone or others.
    """
    model = model_of(store, intact(store, engine))
    target = engine.read_facts(EngineFacts).target
    line = {part.read_facts(EngineFacts).target: part for part in derivation_of(store, engine)}
    chosen = [*overrides]
    if images is not None:
        chosen.append(f"robustness.images={images}")
    if names := list(corruptions):
        chosen.append(f"robustness.corruptions=[{', '.join(names)}]")
    plan, done = continue_from(store, model, [PARENT, target], chosen, line)
    recipe = plan.recipe
    if not recipe.robustness.images:
        rule = recipe.robustness.model_copy(update={"images": DEFAULT_IMAGES})
        recipe = recipe.model_copy(update={"robustness": rule})
    if data is not None:
        folder = recipe.data.model_copy(update={"path": str(data.resolve())})
        recipe = recipe.model_copy(update={"data": folder})
    compared = [step for step in plan.steps if step.name.kind == "engine"]
    sources = [step for step in plan.steps if data is None or step.name.kind != "dataset"]
    step = robustness_step(recipe, target, compared, sources)
    others = [other for other in plan.steps if other.name != step.name]
    plan = replace(plan, recipe=recipe, steps=(*others, step))
    return build_step(plan, step.name, store, done)
