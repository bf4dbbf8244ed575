"""The plan of a recipe: the steps of its run, checked before any work starts."""

from __future__ import annotations

from collections.abc import Sequence

from lesiontk.backends import parse_target, returns_features
from lesiontk.deploy import find_bundle_target
from lesiontk.evaluate.verdict import Unresolved
from lesiontk.recipe import Recipe
from lesiontk.stage import StepId
from lesiontk.stages import STAGES
from lesiontk.stages.bench import BenchConfig
from lesiontk.stages.bundle import BundleConfig
from lesiontk.stages.explain import ExplainConfig
from lesiontk.stages.input_checks import InputChecksConfig
from lesiontk.stages.inspect_images import InspectConfig
from lesiontk.stages.prepare import PrepareConfig
from lesiontk.stages.report import ReportConfig
from lesiontk.stages.split import SplitConfig
from lesiontk.workflow.plan_engines import (
    CALIBRATION,
    plan_engines,
    plan_evaluation,
    plan_flips,
    plan_references,
    plan_robustness,
    plan_stability,
)
from lesiontk.workflow.plan_models import (
    IMAGES,
    insert_predictions,
    plan_models,
    plan_smaller_images,
)
from lesiontk.workflow.steps import Plan, Roles, Step, find_trained_step
from lesiontk.workflow.validate_recipe import check_files, check_names

DATASET, INSPECTION, SPLIT = StepId("dataset"), StepId("inspection"), StepId("split")
BENCHMARK = StepId("benchmark")
REPORTED = (
    "inspection",
    "split",
    "calibration",
    "sensitivity",
    "stability",
    "input_checks",
    "robustness",
    "explanation",
    "flips",
)
"""Kinds of steps in the report, besides the model, its engines and their evaluations."""


def plan_recipe(recipe: Recipe, *, images_known: bool = False, gated: bool = True) -> Plan:
    """Return the checked plan. Raises `UsageError`, `DataError` or `MissingRequirementError`.

    With `images_known` the data steps are done, and only steps that read the folder again require
    it. Without `gated` no engine is tested, so gates are not checked.
    """
    check_names(recipe)
    if not images_known:
        check_files(recipe, gated=gated)
    data = _data_steps(recipe)
    models = plan_models(recipe, data)
    model = models[-1]
    steps = [*data, *plan_smaller_images(models, data[-1])]
    conversions = plan_engines(recipe, model)
    engines = [step for step in conversions if step.name.kind == "engine"]
    trained = find_trained_step(models)
    references = [] if trained is model else plan_references(engines, model, trained)
    if any("calibration" in step.parents for step in engines):
        # Before training, so that an impossible list fails early.
        known = {"images": model.parents["images"], "inspection": INSPECTION}
        steps.append(Step(CALIBRATION, "calibrate", recipe.calibration, known))
    steps += [*insert_predictions(recipe, models, steps), *conversions, *references]
    compared = [*references, *engines]
    evaluations = [plan_evaluation(recipe, step, compared) for step in compared]
    steps += evaluations
    steps += plan_stability(recipe, engines, model)
    bundled = _bundled_engines(recipe, engines)
    checks = [
        _input_checks_step(step)
        for step in engines
        if step in bundled.values() and returns_features(parse_target(step.name.target)[0])
    ]
    steps += checks
    steps += plan_robustness(recipe, engines, compared, data)
    steps += _explanation_steps(recipe, model, evaluations)
    steps += plan_flips(recipe, engines, compared, model)
    finished: Roles = {step.name: step.name for step in [*compared, *evaluations]}
    steps.append(_benchmark_step(recipe, model, finished))
    steps.append(_report_step(recipe, models, finished, steps))
    steps += [_bundle_step(device, engine, engines, checks) for device, engine in bundled.items()]
    if not images_known:
        for step in steps:
            STAGES.get(step.stage)().check(step.config)
    return Plan(recipe, tuple(steps))


def _data_steps(recipe: Recipe) -> list[Step]:
    data = recipe.data
    steps: list[Step] = []
    dataset: Roles = {}
    if data.source == "synthetic" and data.path is None:
        steps.append(Step(DATASET, "synthesize", data.synthetic))
        dataset = {"dataset": DATASET}
    return [
        *steps,
        Step(
            INSPECTION,
            "inspect",
            InspectConfig(source=data.source, path=data.path, max_failures=data.max_failures),
            dataset,
        ),
        Step(
            SPLIT,
            "split",
            SplitConfig(task=data.task, rule=data.split),
            {"inspection": INSPECTION},
        ),
        Step(
            IMAGES,
            "prepare",
            PrepareConfig(
                path=data.path,
                image_size=data.image_size,
                crop_mode=data.crop_mode,
                training_aspect=data.training_aspect,
                training_size=data.training_size,
                enhance=data.enhance,
                max_failures=data.max_failures,
            ),
            {"split": SPLIT, **dataset},
        ),
    ]


def _explanation_steps(recipe: Recipe, model: Step, evaluations: Sequence[Step]) -> list[Step]:
    """Return the step of the heatmaps, if requested."""
    if recipe.explain.images == 0:
        return []
    parents = {"model": model.name, "images": model.parents["images"]}
    own = StepId("evaluation", "keras:float32")
    if any(step.name == own for step in evaluations):
        parents["evaluation"] = own
    config = ExplainConfig(images=recipe.explain.images)
    return [Step(StepId("explanation"), "explain", config, parents)]


def _benchmark_step(recipe: Recipe, model: Step, finished: Roles) -> Step:
    config = BenchConfig(
        rule=recipe.bench,
        gate=recipe.gate,
        unresolved=Unresolved(recipe.unresolved),
        statistics=recipe.evaluate,
    )
    return Step(BENCHMARK, "bench", config, {"images": model.parents["images"], **finished})


def _report_step(
    recipe: Recipe,
    models: Sequence[Step],
    finished: Roles,
    steps: Sequence[Step],
) -> Step:
    rest: Roles = {step.name: step.name for step in steps if step.name.kind in REPORTED}
    # Latencies are not part of a model's content: they are in its own manifest.
    before: Roles = {
        StepId("ancestor", str(number), step.stage): step.name
        for number, step in enumerate(models[:-1])
    }
    return Step(
        StepId("report"),
        "report",
        ReportConfig(name=recipe.name, description=recipe.description),
        {
            "benchmark": BENCHMARK,
            "model": models[-1].name,
            **before,
            "images": models[-1].parents["images"],
            **rest,
            **finished,
        },
    )


def _bundled_engines(recipe: Recipe, engines: Sequence[Step]) -> dict[str, Step]:
    """Return device -> its preferred engine."""
    of = {step.name.target: step for step in engines}
    return {device: of[find_bundle_target(device).choose(list(of))] for device in recipe.bundle}


def _input_checks_step(engine: Step) -> Step:
    parents = {"engine": engine.name, "images": engine.parents["images"]}
    return Step(engine.name.of_kind("input_checks"), "input_checks", InputChecksConfig(), parents)


def _bundle_step(
    device: str, engine: Step, engines: Sequence[Step], checks: Sequence[Step]
) -> Step:
    """Return the step of a device's bundle, with the other engine of which it keeps one, if any."""
    parents = {
        "engine": engine.name,
        "evaluation": engine.name.of_kind("evaluation"),
        "benchmark": BENCHMARK,
    }
    own = engine.name.of_kind("input_checks")
    if any(step.name == own for step in checks):
        parents["input_checks"] = own
    config = BundleConfig(target=device)
    other = find_bundle_target(device).alternatives.get(engine.name.target)
    found = next((step for step in engines if step.name.target == other), None)
    if found is not None:
        parents["alternative"] = found.name
        parents["alternative_parent"] = found.parents["source"]
        parents["alternative_evaluation"] = found.name.of_kind("evaluation")
        parents["alternative_benchmark"] = BENCHMARK
    elif other is not None:
        reason = f"the recipe makes no {other}, so the device cannot measure whether it is as fast"
        config = config.model_copy(update={"no_alternative": reason})
    return Step(StepId("bundle", device), "bundle", config, parents)
