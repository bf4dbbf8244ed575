"""What the commands do, as functions: each takes a store and gives back artefacts or documents."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lesiontk.backends import is_engine_file
from lesiontk.bench.benchmark import TRAINED
from lesiontk.data.tasks import definition_of, task_from_definition
from lesiontk.deploy import find_bundle_target
from lesiontk.deploy.bundle import check_destination
from lesiontk.errors import DataError, GateFailedError, LesionTKError, UsageError
from lesiontk.evaluate.default_gates import check_gates_of_task
from lesiontk.files.regular_file import resolve_path
from lesiontk.recipe import (
    Recipe,
    override_document,
    override_recipe,
    read_recipe,
)
from lesiontk.records import Artefact
from lesiontk.stages import STAGES
from lesiontk.stages.bench import read_benchmark
from lesiontk.stages.bundle import BundleConfig, copy_bundle, write_bundle_of_file
from lesiontk.store import Store
from lesiontk.train.distribution import check_distribution
from lesiontk.train.tf_config import read_cluster
from lesiontk.workflow.lineage import (
    derivation_of,
    engines_of,
    find_assessment,
    find_evaluation,
    intact,
    lineage_of,
    locate_engine,
    locate_teacher,
    locate_teachers,
    model_of,
    recipe_of,
    resolve_network,
    sensitivities_of,
    stabilities_of,
)
from lesiontk.workflow.parallel_conversion import choose_aside, converting_aside, shared_engines
from lesiontk.workflow.plan import Plan, plan_recipe
from lesiontk.workflow.runner import build_step, known_ancestors, run_plan

PARENT = "keras:float32"
"""The trained model itself, beside which every other engine is shown."""


def run_recipe(store: Store, recipe: Recipe) -> dict[str, Artefact]:
    """Build everything from images to report; returns the artefacts by step name.

    Raises `UsageError` for a training that several workers share: what follows it is for one.
    """
    if recipe.train.distribute == "multi_worker":
        raise UsageError(
            "train.distribute is multi_worker, which `lesiontk run` does not share out; expected "
            "`lesiontk train` on every worker, then `lesiontk quantize --int8` and `lesiontk "
            "bench` on the first, whose workspace has the model."
        )
    check_distribution(recipe.train)
    return run_plan(plan_run(store, recipe), store)


def plan_run(store: Store, recipe: Recipe, *, gated: bool = True) -> Plan:
    """Return the checked plan of a recipe, with the files of the teachers that it names.

    Without `gated` nothing will be judged, so the gates may be of another task.
    """
    _keep_apart(store, recipe)
    return plan_recipe(locate_teachers(store, recipe), gated=gated)


def build_data(store: Store, recipe: Recipe, step: str) -> Artefact:
    """Build one of the data steps: ``inspection``, ``split`` or ``images``.

    The images are those of the last model, which compression may have given smaller ones.
    """
    plan = plan_run(store, recipe, gated=False)
    name = plan[plan.model].parents["images"] if step == "images" else step
    return build_step(plan, name, store, {})


def train_recipe(store: Store, recipe: Recipe, *, restart: bool = False) -> Artefact:
    """Build the recipe's model: training, and compression where the recipe has it.

    With `restart` an unfinished training of it begins anew. Where TF_CONFIG makes this process one
    of several workers (``train.distribute: multi_worker``), each calls this: all prepare the images
    and get the same model, the first in the workspace, the others in `Store.for_worker`.
    """
    plan = plan_run(store, recipe)
    check_distribution(recipe.train)
    if recipe.train.distribute == "multi_worker":
        store = store.for_worker(read_cluster().index)
    return build_step(plan, plan.model, store, {}, restart=restart)


def import_file(
    store: Store,
    file: Path,
    *,
    data: Path | None,
    task: str | None,
    pixels: str,
    labels: Sequence[str] = (),
    recipe: str | None = None,
    overrides: Iterable[str] = (),
) -> Artefact:
    """Take a model that was trained elsewhere into the workspace, in the place of training.

    With `recipe` it is taken as that recipe's model: task, gate and what is done about rare classes
    are the recipe's, so that compressing it goes on as if it had been trained here.

    Its validation and test images are those of the split of `data`: what the model has seen of them
    is not known here, and all that is made of it says so. A file that lesiontk wrote tells its
    split, and `DataError` is raised for any other. Raises `UsageError` without images, for int8 is
    calibrated on them; synthetic ones must be asked for (``data.source=synthetic``).
    """
    from lesiontk.models.imported_file import load_foreign_model
    from lesiontk.models.imported_model import check_finite, input_size

    source = load_foreign_model(file)
    check_finite(source)  # before the images are prepared
    size = input_size(source, file)
    overrides = list(overrides)
    if (
        size is None
        and recipe is None
        and not any(override.startswith("data.image_size=") for override in overrides)
    ):
        raise UsageError(
            f"{file.name} takes images of any size; expected the one that it was trained on: "
            "--set data.image_size=S."
        )
    section = {"file": str(file.resolve()), "pixels": pixels, "labels": tuple(labels)}
    if recipe is None:
        name = re.sub(r"[^a-z0-9]+", "_", file.stem.lower()).strip("_") or "imported"
        described = Recipe(name=name, description=f"Imported from {file.name}.")
    else:
        described = read_recipe(recipe)
    changes = [f"imported={json.dumps(section)}"]
    if size is not None:
        changes.append(f"data.image_size={size}")
    if task is not None:
        changes.append(f"data.task={json.dumps(task)}")
    if data is not None:
        changes.append(f"data.path={json.dumps(str(data.resolve()))}")
    made = override_recipe(described, [*changes, *overrides])
    if made.data.path is None and made.data.source != "synthetic":
        raise UsageError(
            f"{file.name} came without images; expected --data DIR with those that it was trained "
            "on, or with images like them, for int8 is calibrated on them. To try the commands "
            "alone, --set data.source=synthetic takes made-up ones."
        )
    return train_recipe(store, made)


def compress_model(
    store: Store,
    model: Artefact,
    technique: str,
    options: Mapping[str, Any],
    overrides: Iterable[str] = (),
    *,
    data: Path | None = None,
) -> Artefact:
    """Apply one compression to a model: what the recipe key of the same name does in a run.

    `overrides` are ``key=value`` of the technique's own options, as ``recover.epochs=8``. `data` is
    the folder of the images, if it is not where it was.
    """
    recipe = recipe_of(model)
    if data is not None:
        recipe = override_recipe(recipe, [f"data.path={json.dumps(str(data.resolve()))}"])
    line = lineage_of(store, model)
    # A model of the middle carries the whole recipe: what came after it is left out.
    so_far = recipe.compress[: len(line) - 1]
    entry = override_document({k: v for k, v in options.items() if v is not None}, overrides)
    if "teacher" in entry:
        entry["teacher"] = str(locate_teacher(store, str(entry["teacher"])))
    longer = recipe.model_copy(update={"compress": (*so_far, {technique: entry})})
    plan = plan_recipe(longer, images_known=True)
    done = _known_models(store, plan, line)
    stage, config = STAGES.get(technique)(), plan[plan.model].config
    stage.check(config)
    stage.check_model(model, config)
    return build_step(plan, plan.model, store, done)


def convert_model(
    store: Store,
    model: Artefact,
    targets: Sequence[str],
    overrides: Iterable[str] = (),
    *,
    aside: bool = True,
    refused: dict[str, LesionTKError] | None = None,
) -> dict[str, Artefact]:
    """Convert a model to the targets; what they are derived from is converted too.

    A target that cannot be made of this model is an error. With `refused`, its error is put there
    under the target's name and the others are made all the same. Of a large model, and unless
    `aside` is False, the targets of a second back end are converted in a process of their own
    meanwhile.
    """
    overrides = tuple(overrides)
    plan, done = _continue_from(store, model, targets, overrides)

    def build(chosen: Iterable[str]) -> dict[str, Artefact]:
        made = {}
        for target in chosen:
            try:
                made[target] = build_step(plan, f"engine:{target}", store, done)
            except (DataError, GateFailedError) as error:
                if refused is None:
                    raise
                refused[target] = error
        return made

    others = choose_aside(model, targets) if aside else ()
    if others:
        with converting_aside(store, model, others, overrides) as begin:
            for name in shared_engines(plan, targets, others):
                build_step(plan, name, store, done)
            begin()
            build(target for target in targets if target not in others)
    return build(targets)


def measure_sensitivity(
    store: Store, model: Artefact, backend: str, overrides: Iterable[str] = ()
) -> Artefact:
    """Measure what int8 does to each layer, and find those that stay in float to meet the gate."""
    plan, done = _continue_from(store, model, [f"{backend}:mixed"], overrides)
    return build_step(plan, f"sensitivity:{backend}", store, done)


def measure_stability(
    store: Store, model: Artefact, target: str, draws: int, overrides: Iterable[str] = ()
) -> Artefact:
    """Make an int8 engine from further calibration draws, and compare each with the recipe's."""
    if not target.endswith(":int8"):
        raise UsageError(f"{target} is not calibrated to int8; expected tflite:int8, say.")
    changes = [*overrides, f"stability.draws={draws}"]
    plan, done = _continue_from(store, model, [target], changes)
    return build_step(plan, f"stability:{target}", store, done)


def bundle_engines(
    store: Store,
    engines: Mapping[str, Artefact],
    devices: Sequence[str],
    threshold: float | None = None,
    *,
    accept_unresolved: bool = False,
) -> dict[str, Artefact]:
    """Return device -> bundle of the engine that fits it best, of target -> engine.

    A bundle carries the threshold and figures of the engine's evaluation where the workspace has
    it, or decides at `threshold`. Raises `UsageError` for an unknown device, or if none of the
    engines runs there, and `GateFailedError` for an engine whose gates are not passed; with
    `accept_unresolved` gates that are not shown are let through, and the bundle says so.
    """
    chosen = {name: engines[find_bundle_target(name).choose(engines)] for name in devices}
    bundles = {}
    for name, engine in chosen.items():
        parents = {"engine": engine}
        if recipe_of(engine).gate:
            parents["benchmark"] = judged_benchmark(store, engine)
        evaluation = find_evaluation(store, engine)
        if evaluation is not None:
            parents["evaluation"] = evaluation
        bundles[name] = store.build(
            STAGES.get("bundle")(),
            BundleConfig(target=name, threshold=threshold, accept_unresolved=accept_unresolved),
            parents,
            recipe=engine.manifest["recipe"],
        )
    return bundles


def judged_benchmark(store: Store, engine: Artefact) -> Artefact:
    """Return a benchmark that judged this very engine by its recipe's gates, made if need be."""
    target, gates = str(engine.facts["target"]), list(recipe_of(engine).gate)
    for benchmark in store.list_artefacts("benchmark"):
        manifest = benchmark.manifest
        parent = manifest["parents"].get(f"engine:{target}")
        if (
            parent is not None
            and parent["content"] == engine.content
            and manifest["stage"]["version"] == STAGES.get("bench").info.version
            and manifest["config"]["gate"] == gates
        ):
            return benchmark
    asked = [f"gate={json.dumps(gates)}"]
    return benchmark_model(
        store, model_of(store, engine), [target], asked, engines={target: engine}
    )


def bundle_reference(
    store: Store,
    reference: str,
    device: str,
    out: Path | None = None,
    threshold: float | None = None,
    *,
    accept_unresolved: bool = False,
) -> tuple[Path, dict[str, Any]]:
    """Write a device's bundle of an engine, or of a model's best fitting one; returns its folder.

    An engine of the workspace is evaluated first, unless it was: a bundle says what its engine is
    worth. `out` gets a copy; an engine file from outside the workspace needs it. The bundle decides
    at `threshold`, or at the one that was frozen.
    """
    target = find_bundle_target(device)
    if out is not None:
        check_destination(out)
    if is_engine_file(reference):
        if out is None:
            raise UsageError(f"{reference} is a file outside the workspace; expected --out DIR.")
        path = locate_engine(store, reference)
        known = find_assessment(store, reference)
        return out, write_bundle_of_file(out, path, target, assessment=known, threshold=threshold)
    artefact = resolve_network(store, reference)
    engines = (
        {str(artefact.facts["target"]): artefact}
        if artefact.kind == "engine"
        else engines_of(store, artefact)
    )
    engine = intact(store, engines[target.choose(engines)])
    evaluate_artefact(store, engine)
    chosen = {str(engine.facts["target"]): engine}
    made = bundle_engines(store, chosen, [device], threshold, accept_unresolved=accept_unresolved)[
        device
    ]
    if out is not None:
        copy_bundle(made, out)
    return out or made.path, dict(made.facts)


def benchmark_model(
    store: Store,
    model: Artefact,
    targets: Sequence[str] = (),
    overrides: Iterable[str] = (),
    *,
    fresh: bool = False,
    engines: Mapping[str, Artefact] | None = None,
) -> Artefact:
    """Evaluate and time the model's engines beside their full-precision parents.

    Without `targets`, those that the workspace holds for this model; the engines themselves are
    taken, not made again. `engines` names others for their target. With `fresh`, latency is
    measured again although an equal benchmark exists.
    """
    found = {**engines_of(store, model), **(engines or {})}
    chosen = list(targets or found)
    if not chosen:
        raise UsageError(
            f"{model.name} has no engine yet; make one with `lesiontk quantize --int8` or "
            "`lesiontk convert --to BACKEND:PRECISION`."
        )
    plan, done = _continue_from(store, model, [PARENT, *chosen], overrides, found, fresh=fresh)
    return build_step(plan, "benchmark", store, done)


def benchmark_references(
    store: Store,
    references: Sequence[str],
    model: str = "latest",
    overrides: Iterable[str] = (),
    *,
    fresh: bool = False,
) -> tuple[dict[str, Any], Artefact | None]:
    """Benchmark engines by reference; returns the document, and its artefact if it has one.

    Engines of the workspace are compared with their parent on its test split. For files see
    `benchmark_engine_files`.
    """
    engines = [store.resolve(reference, "engine") for reference in references]
    parent = model_of(store, engines[0]) if engines else store.resolve(model, "model")
    strangers = [e.name for e in engines if model_of(store, e).content != parent.content]
    if strangers:
        raise UsageError(
            f"{', '.join(strangers)} descend(s) from another model than {engines[0].name}; compare "
            "engines of one model."
        )
    named = {str(engine.facts["target"]): engine for engine in engines}
    if len(named) < len({engine.name for engine in engines}):
        raise UsageError(
            "two of the engines have the same target; bench them one after the other, each beside "
            "its parent."
        )
    artefact = benchmark_model(store, parent, list(named), overrides, fresh=fresh, engines=named)
    return read_benchmark(artefact), artefact


def rules_from(overrides: Iterable[str]) -> Recipe:
    """Return the defaults with overrides, for engines that have no recipe here.

    They have no gates but those that the overrides name.
    """
    return override_recipe(Recipe(name="engine_files", gate=()), overrides)


def report_model(store: Store, model: Artefact, overrides: Iterable[str] = ()) -> Artefact:
    """Build the report over the model's engines, and over what was measured of them before."""
    found = engines_of(store, model)
    plan, done = _continue_from(store, model, [PARENT, *found], overrides, found)
    known = {**sensitivities_of(store, model), **stabilities_of(store, found)}
    told = {name: artefact for name, artefact in known.items() if name not in plan}
    return build_step(plan.tell(told), "report", store, {**told, **done})


def evaluate_artefact(store: Store, engine: Artefact, overrides: Iterable[str] = ()) -> Artefact:
    """Evaluate an engine of the workspace on the test subset of its own split."""
    model = model_of(store, intact(store, engine))
    target = str(engine.facts["target"])
    line = {str(part.facts["target"]): part for part in derivation_of(store, engine)}
    plan, done = _continue_from(store, model, [target], overrides, line)
    return build_step(plan, f"evaluation:{target}", store, done)


def _keep_apart(store: Store, recipe: Recipe) -> None:
    """Refuse a workspace among the images: its own pictures would become part of the data."""
    if recipe.data.path is None:
        return
    data = resolve_path(recipe.data.path, "data folder")
    workspace = resolve_path(store.workspace, "workspace")
    if workspace == data or workspace.is_relative_to(data):
        raise UsageError(
            f"the workspace {store.workspace} lies in the data folder {recipe.data.path}; expected "
            "it elsewhere: name another with --workspace."
        )


def _continue_from(
    store: Store,
    model: Artefact,
    targets: Sequence[str],
    overrides: Iterable[str],
    engines: Mapping[str, Artefact] | None = None,
    *,
    fresh: bool = False,
) -> tuple[Plan, dict[str, Artefact]]:
    """Return the plan from `model` on, and the artefacts that are there already.

    `engines` are taken for the targets they are called by, and not made again.
    """
    overrides = list(overrides)
    late = [
        o
        for o in overrides
        if o.partition(".")[0] in ("data", "model", "imported", "train", "compress")
    ]
    if late:
        raise UsageError(
            f"--set {late[0]} comes too late, for {model.name} is trained; expected keys of "
            "calibration, quantize, sensitivity, stability, verify, evaluate, explain, bench or "
            "gate. `lesiontk train` takes the others."
        )
    recipe = override_recipe(recipe_of(model), overrides)
    line = lineage_of(store, model)
    chosen = {
        "convert": tuple(dict.fromkeys(targets)),
        "bundle": (),
        # A model of the middle carries the whole recipe: what came after it is left out.
        "compress": recipe.compress[: len(line) - 1],
    }
    recipe = recipe.model_copy(update=chosen)
    if fresh:
        taken = [
            int(artefact.manifest["config"]["rule"]["repetition"])
            for artefact in store.list_artefacts("benchmark")
        ]
        rule = recipe.bench.model_copy(update={"repetition": max(taken, default=0) + 1})
        recipe = recipe.model_copy(update={"bench": rule})
    plan = plan_recipe(recipe, images_known=True)
    models = _known_models(store, plan, line)
    task = task_from_definition(definition_of(models["images"].facts))
    check_gates_of_task(recipe.gate, task.name, task.labels, task.positive)
    given = {f"engine:{target}": engine for target, engine in (engines or {}).items()}
    if engines is not None and plan.trained != plan.model:
        known = engines_of(store, models[plan.trained])
        given |= {f"engine:{target}{TRAINED}": engine for target, engine in known.items()}
    given = {name: engine for name, engine in given.items() if name in plan}
    # What the engines were made with is told of them, whatever the recipe would do today.
    tools = {
        plan[name].parents[role]: store.parent(engine, role)
        for name, engine in given.items()
        for role in ("calibration", "ranges", "sensitivity")
        if role in plan[name].parents and role in engine.manifest["parents"]
    }
    return plan, {**models, **tools, **given}


def _known_models(store: Store, plan: Plan, line: Sequence[Artefact]) -> dict[str, Artefact]:
    """Return the models of a line, and the data that each was made with, by the plan's steps."""
    if [step.stage for step in plan.models][: len(line)] != [made.stage for made in line]:
        raise DataError(f"{line[-1].name} was made in other steps than its recipe has.")
    done = known_ancestors(line[0], store)
    for step, made in zip(plan.models, line, strict=False):  # the plan may go on
        done |= {step.name: made, step.parents["images"]: store.parent(made, "images")}
    return done
