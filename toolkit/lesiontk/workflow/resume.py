"""The finished steps of a model's recipe, and the plan from there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from lesiontk.data.images import PreparedImages
from lesiontk.errors import DataError, UsageError
from lesiontk.evaluate.default_gates import check_gates_of_task
from lesiontk.recipe import override_recipe
from lesiontk.records import Artefact
from lesiontk.stage import REFERENCE, StepId
from lesiontk.store import Store
from lesiontk.workflow.lineage import engines_of, lineage_of, recipe_of
from lesiontk.workflow.plan import plan_recipe
from lesiontk.workflow.runner import known_ancestors
from lesiontk.workflow.steps import Plan


def continue_from(
    store: Store,
    model: Artefact,
    targets: Sequence[str],
    overrides: Iterable[str],
    engines: Mapping[str, Artefact] | None = None,
    *,
    fresh: bool = False,
) -> tuple[Plan, dict[str, Artefact]]:
    """Return the plan from `model`, and the existing artefacts.

    `engines` are used for their targets and not made again.
    """
    overrides = list(overrides)
    late = [
        o
        for o in overrides
        if o.partition(".")[0] in ("data", "model", "imported", "train", "compress")
    ]
    if late:
        raise UsageError(
            f"--set {late[0]} has no effect, because {model.name} is already trained; expected "
            "keys of calibration, quantize, sensitivity, stability, verify, evaluate, explain, "
            "robustness, bench or gate. `lesiontk train` accepts the others."
        )
    recipe = override_recipe(recipe_of(model), overrides)
    line = lineage_of(store, model)
    chosen = {
        "convert": tuple(dict.fromkeys(targets)),
        "bundle": (),
        # An intermediate model has the whole recipe: later steps are left out.
        "compress": recipe.compress[: len(line) - 1],
    }
    recipe = recipe.model_copy(update=chosen)
    if fresh:
        reused = [
            int(artefact.manifest.config["rule"]["repetition"])
            for artefact in store.list_artefacts("benchmark")
        ]
        rule = recipe.bench.model_copy(update={"repetition": max(reused, default=0) + 1})
        recipe = recipe.model_copy(update={"bench": rule})
    plan = plan_recipe(recipe, images_known=True)
    models = known_models(store, plan, line)
    task = models["images"].read_facts(PreparedImages).task
    check_gates_of_task(recipe.gate, task.name, task.labels, task.positive)
    given: dict[str, Artefact] = {
        StepId("engine", target): engine for target, engine in (engines or {}).items()
    }
    if engines is not None and plan.trained != plan.model:
        known = engines_of(store, models[plan.trained])
        given |= {StepId("engine", target, REFERENCE): made for target, made in known.items()}
    given = {name: engine for name, engine in given.items() if name in plan}
    # The engines' facts are those of their conversion, not of the current recipe.
    tools: dict[str, Artefact] = {
        plan[name].parents[role]: store.parent(engine, role)
        for name, engine in given.items()
        for role in ("calibration", "ranges", "sensitivity")
        if role in plan[name].parents and role in engine.manifest.parents
    }
    return plan, {**models, **tools, **given}


def known_models(store: Store, plan: Plan, line: Sequence[Artefact]) -> dict[str, Artefact]:
    """Return the models of a line and their data, by the plan's steps."""
    if [step.stage for step in plan.models][: len(line)] != [made.stage for made in line]:
        raise DataError(f"{line[-1].name} was made with other steps than those of its recipe.")
    done = known_ancestors(line[0], store)
    for step, made in zip(plan.models, line, strict=False):  # the plan may continue
        done |= {step.name: made, step.parents["images"]: store.parent(made, "images")}
    return done
