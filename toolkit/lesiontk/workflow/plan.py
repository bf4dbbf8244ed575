"""From a recipe to the steps of its run, checked whole before any work starts."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import ValidationError

from lesiontk.backends import BACKENDS, parse_target
from lesiontk.bench.benchmark import FULL_PRECISION, TRAINED
from lesiontk.compress.model_history import find_trained
from lesiontk.deploy import find_bundle_target
from lesiontk.errors import MissingRequirementError, UsageError, suggest
from lesiontk.evaluate.search_criterion import list_guiding
from lesiontk.evaluate.verdict import Unresolved
from lesiontk.models import ARCHITECTURES
from lesiontk.recipe import Recipe, explain_invalid
from lesiontk.stage import StageConfig
from lesiontk.stages import STAGES
from lesiontk.stages.bench import BenchConfig
from lesiontk.stages.bundle import BundleConfig
from lesiontk.stages.convert import ConvertConfig
from lesiontk.stages.explain import ExplainConfig
from lesiontk.stages.inspect_images import InspectConfig
from lesiontk.stages.parent_predictions import ParentPredictionsConfig
from lesiontk.stages.prepare import PrepareConfig
from lesiontk.stages.ranges import RangesConfig
from lesiontk.stages.report import ReportConfig
from lesiontk.stages.resize import ResizeConfig
from lesiontk.stages.sensitivity import SensitivityConfig
from lesiontk.stages.split import SplitConfig
from lesiontk.stages.stability import StabilityConfig
from lesiontk.stages.teacher_predictions import TeacherPredictionsConfig, TeacherPredictionsStage
from lesiontk.stages.train import TrainConfig
from lesiontk.workflow.order import explain_order
from lesiontk.workflow.validate_recipe import check_files, check_names

AS_TRAINED = ("imbalance", "augment", "batch_size", "micro_batches")
INHERITED = {"recover": (*AS_TRAINED, "mixed_precision"), "train": AS_TRAINED}
"""The section of a technique that is a training, and the keys that it takes from the recipe's."""


REMEMBERED = (
    "inspection",
    "split",
    "calibration",
    "sensitivity",
    "stability",
    "explanation",
)
"""The steps that the report tells of, beside the model, its engines and their evaluations."""


@dataclass(frozen=True, slots=True)
class Step:
    """One stage with its config; `parents` maps each role to the step that fills it."""

    name: str
    stage: str
    config: StageConfig
    parents: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Plan:
    """The steps of a recipe in an order in which they can run."""

    recipe: Recipe
    steps: tuple[Step, ...]

    def __contains__(self, name: object) -> bool:
        return any(step.name == name for step in self.steps)

    def __getitem__(self, name: str) -> Step:
        return next(step for step in self.steps if step.name == name)

    def tell(self, known: Iterable[str]) -> Plan:
        """Return the plan whose report tells of artefacts too that no step of it makes."""
        roles = {name: name for name in known}
        report = replace(self["report"], parents={**self["report"].parents, **roles})
        steps = (report if step.name == "report" else step for step in self.steps)
        return replace(self, steps=tuple(steps))

    @property
    def models(self) -> tuple[Step, ...]:
        """Training and each compression, in their order."""
        return tuple(step for step in self.steps if step.name.startswith("model"))

    @property
    def model(self) -> str:
        """The step whose model is converted: the last of training and compression."""
        return self.models[-1].name

    @property
    def trained(self) -> str:
        """The step whose model compression began with."""
        return self.models[find_trained(step.stage for step in self.models)].name


def plan_recipe(recipe: Recipe, *, images_known: bool = False, gated: bool = True) -> Plan:
    """Return the checked plan; raises `UsageError`, `DataError` or `MissingRequirementError`.

    With `images_known` the data steps are done already, and their folder is asked for by those
    alone that read it anew. Without `gated` no engine will be judged, so gates are not checked.
    """
    check_names(recipe)
    if not images_known:
        check_files(recipe, gated=gated)
    steps = _data_steps(recipe)
    models = _model_steps(recipe, [step.name for step in steps])
    steps += _smaller_images(models, steps[-1])
    model = models[-1].name
    images = models[-1].parents["images"]
    conversions = _engine_steps(recipe, models[-1])
    engines = [step for step in conversions if step.stage == "convert"]
    trained = models[find_trained(step.stage for step in models)]
    references = [] if trained is models[-1] else _reference_steps(engines, models[-1], trained)
    if any("calibration" in step.parents for step in engines):
        # Before training, so that a list that cannot be drawn is not found out after it.
        known = {"images": images, "inspection": "inspection"}
        steps.append(Step("calibration", "calibrate", recipe.calibration, known))
    known_steps = [step.name for step in steps]
    steps += [*_insert_predictions(recipe, models, known_steps), *conversions, *references]
    compared = [*references, *engines]
    evaluations = [_evaluation_step(recipe, step, compared) for step in compared]
    steps += evaluations
    if recipe.stability.draws:
        steps += [_stability_step(recipe, step, model) for step in engines if _is_int8(step)]
    steps += _explanation_steps(recipe, models[-1], [step.name for step in evaluations])
    finished = {step.name: step.name for step in [*compared, *evaluations]}
    steps.append(
        Step(
            "benchmark",
            "bench",
            BenchConfig(
                rule=recipe.bench,
                gate=recipe.gate,
                unresolved=Unresolved(recipe.unresolved),
                statistics=recipe.evaluate,
            ),
            {"images": images, **finished},
        )
    )
    rest = {step.name: step.name for step in steps if step.name.partition(":")[0] in REMEMBERED}
    # Latencies stay outside of a model's content: what was measured of each is in its own manifest.
    before = {f"ancestor:{n}:{step.stage}": step.name for n, step in enumerate(models[:-1])}
    steps.append(
        Step(
            "report",
            "report",
            ReportConfig(name=recipe.name, description=recipe.description),
            {
                "benchmark": "benchmark",
                "model": model,
                **before,
                "images": images,
                **rest,
                **finished,
            },
        )
    )
    steps += _bundle_steps(recipe, [step.name.partition(":")[2] for step in engines])
    if not images_known:
        for step in steps:
            STAGES.get(step.stage)().check(step.config)
    return Plan(recipe, tuple(steps))


def _data_steps(recipe: Recipe) -> list[Step]:
    data = recipe.data
    steps: list[Step] = []
    dataset: dict[str, str] = {}
    if data.source == "synthetic" and data.path is None:
        steps.append(Step("dataset", "synthesize", data.synthetic))
        dataset = {"dataset": "dataset"}
    return [
        *steps,
        Step(
            "inspection",
            "inspect",
            InspectConfig(source=data.source, path=data.path, max_failures=data.max_failures),
            dataset,
        ),
        Step(
            "split",
            "split",
            SplitConfig(task=data.task, rule=data.split),
            {"inspection": "inspection"},
        ),
        Step(
            "images",
            "prepare",
            PrepareConfig(
                path=data.path,
                image_size=data.image_size,
                crop_mode=data.crop_mode,
                enhance=data.enhance,
                max_failures=data.max_failures,
            ),
            {"split": "split", **dataset},
        ),
    ]


def _smaller_images(models: Sequence[Step], images: Step) -> list[Step]:
    """Return the images of each model that takes smaller ones than the model before it."""
    sizes = {
        model.parents["images"]: model.config.image_size
        for model in models
        if isinstance(model.config, ResizeConfig)
    }
    return [
        replace(images, name=name, config=images.config.model_copy(update={"image_size": size}))
        for name, size in sizes.items()
    ]


def _model_steps(recipe: Recipe, data: Collection[str]) -> list[Step]:
    """Return training and compression; `data` are the data steps that there are."""
    origin: tuple[str, StageConfig] = (
        ("import", recipe.imported)
        if recipe.imported
        else ("train", TrainConfig(model=recipe.model, train=recipe.train))
    )
    steps = [Step("model", *origin, {"images": "images"})]
    techniques = [name for name in STAGES if STAGES.get(name).info.may_follow]
    size = recipe.data.image_size
    for number, entry in enumerate(recipe.compress, start=1):
        if len(entry) != 1:
            raise UsageError(f"compress[{number - 1}] has the keys {sorted(entry)}; expected one.")
        ((technique, options),) = entry.items()
        if technique not in techniques:
            raise UsageError(
                f"unknown compression {technique!r}; known are "
                f"{', '.join(techniques) or 'none yet'}." + suggest(technique, techniques)
            )
        info = STAGES.get(technique).info
        if steps[-1].stage not in info.may_follow:
            raise UsageError(explain_order(technique, steps[-1].stage))
        try:
            config = info.config.model_validate(_complete_options(recipe, info.config, options))
        except ValidationError as error:
            raise UsageError(
                f"compress.{technique} is not valid: {explain_invalid(error, info.config)}"
            ) from error
        parents = {role: role for role in info.accepts if role in data}
        parents["model"] = steps[-1].name
        if "images" in info.accepts:
            parents["images"] = steps[-1].parents["images"]
        if getattr(config, "distill", None) is not None:
            taught = [step for step in steps if getattr(step.config, "recover", True) is not None]
            parents["soft_targets"] = f"parent_predictions:{taught[-1].name}"
        name = f"model:{number}:{technique}"
        if isinstance(config, ResizeConfig):
            size = _check_size(recipe, config.image_size, size)
            parents["images"] = f"images:{name}"
        if hasattr(config, "teacher"):
            parents["soft_targets"] = f"teacher_predictions:{name}"
        steps.append(Step(name, technique, config, parents))
    return steps


def _check_size(recipe: Recipe, size: int, before: int) -> int:
    """Return the size of a technique's images, if it is smaller and the network takes it."""
    smallest = 16
    if recipe.imported is None:
        smallest = ARCHITECTURES.get(recipe.model.architecture).min_image_size
    if not smallest <= size < before:
        raise UsageError(
            f"resize.image_size is {size}; expected {smallest} or more pixels, and fewer than "
            f"{before}, which the network takes now."
        )
    return size


def _insert_predictions(
    recipe: Recipe, models: Sequence[Step], data: Collection[str]
) -> list[Step]:
    """Return the models, and before each that listens to another what that one says.

    Of the network's own line the last is asked that was trained, about the images that it was made
    with, whatever the size of its child's.
    """
    seen = {step.name: step.parents["images"] for step in models}
    steps: list[Step] = []
    for model in models:
        soft_targets = model.parents.get("soft_targets")
        if hasattr(model.config, "teacher"):
            asks = TeacherPredictionsConfig(file=model.config.teacher, path=recipe.data.path)
            known = {role: role for role in TeacherPredictionsStage.info.accepts if role in data}
            steps.append(Step(model.parents["soft_targets"], "teacher_predictions", asks, known))
        elif soft_targets is not None and soft_targets not in (step.name for step in steps):
            asked = soft_targets.removeprefix("parent_predictions:")
            roles = {"model": asked, "images": seen[asked]}
            steps.append(Step(soft_targets, "parent_predictions", ParentPredictionsConfig(), roles))
        steps.append(model)
    return steps


def _complete_options(
    recipe: Recipe, config: type[StageConfig], options: Mapping[str, Any]
) -> dict[str, Any]:
    """Return a technique's options with what it takes from the recipe.

    A training of its own goes on as the network was trained (what is done about rare classes, say)
    with the technique's epochs and rates; what is not given keeps the technique's default.
    """
    complete = dict(options)
    if "path" in config.model_fields:
        complete.setdefault("path", recipe.data.path)
    for name, keys in INHERITED.items():
        given = options.get(name, {})
        if name in config.model_fields and isinstance(given, Mapping):
            section = config.model_fields[name].default.model_dump()
            section.update({key: getattr(recipe.train, key) for key in keys})
            complete[name] = {**section, **given}
    return complete


def _engine_steps(recipe: Recipe, made: Step) -> list[Step]:
    """Return one step per target, with what it is derived from put before it.

    That is another target, and for a calibrated one the ranges of that target's tensors.
    """
    steps: dict[str, Step] = {}
    model, images = made.name, made.parents["images"]
    leaky = recipe.data.split.leaky

    def add(target: str) -> str:
        name = f"engine:{target}"
        if name in steps:
            return name
        backend_name, precision = parse_target(target)
        backend = BACKENDS.get(backend_name)()
        availability = backend.available()
        if not availability.available:
            raise MissingRequirementError(f"{target}: {availability.reason}")
        derived_from = backend.info.precisions[precision].derived_from
        parents = {"images": images}
        parents["source"] = model if derived_from == "model" else add(derived_from)
        if derived_from != "model":
            parents["model"] = model
        if backend.info.precisions[precision].calibrated:
            if leaky:
                raise UsageError(
                    f"{target} needs calibration images that share no lesion with the test split, "
                    "and this split leaks; expected `convert` with full-precision engines only."
                )
            parents["calibration"] = "calibration"
            if _exposes_activations(derived_from):
                parents["ranges"] = add_ranges(derived_from)
            if backend.info.precisions[precision].mixed:
                sensitivity = _sensitivity_step(recipe, backend_name, parents)
                steps[sensitivity.name] = sensitivity
                parents["sensitivity"] = sensitivity.name
        calibrated = backend.info.precisions[precision].calibrated
        config = ConvertConfig(
            target=target,
            quantize=recipe.quantize if calibrated else None,
            verify=recipe.verify,
        )
        steps[name] = Step(name, "convert", config, parents)
        return name

    def add_ranges(target: str) -> str:
        name = f"ranges:{target}"
        parents = {
            "source": f"engine:{target}",
            "images": images,
            "calibration": "calibration",
        }
        if model.endswith(":qat"):
            parents["model"] = model
        origin = steps[parents["source"]].parents["source"].removeprefix("engine:")
        if _exposes_activations(origin):
            parents |= {"known": add_ranges(origin), "origin": f"engine:{origin}"}
        steps[name] = Step(name, "ranges", RangesConfig(), parents)
        return name

    for target in recipe.convert:
        add(target)
    return list(steps.values())


def _exposes_activations(target: str) -> bool:
    """Whether a target's back end tells the tensors of its engines; a model's has none."""
    backend = target.partition(":")[0]
    return backend in BACKENDS and BACKENDS.get(backend).info.exposes_activations


def _sensitivity_step(recipe: Recipe, backend: str, parents: Mapping[str, str]) -> Step:
    """Return the step that finds the layers which stay in float, of the engine's own parents."""
    config = SensitivityConfig(
        backend=backend,
        quantize=recipe.quantize,
        rule=recipe.sensitivity,
        gate=list_guiding(recipe.gate),
    )
    roles = ("source", "images", "calibration", "ranges")
    measured = {role: parents[role] for role in roles if role in parents}
    return Step(f"sensitivity:{backend}", "sensitivity", config, measured)


def _is_int8(engine: Step) -> bool:
    """Whether an engine of this step is calibrated to int8 throughout."""
    return "calibration" in engine.parents and engine.name.endswith(":int8")


def _stability_step(recipe: Recipe, engine: Step, model: str) -> Step:
    target = engine.name.partition(":")[2]
    if model.endswith(":qat"):
        raise UsageError(
            f"the ranges of {target} were learned (qat): no draw of calibration images changes it; "
            "expected stability.draws 0."
        )
    config = StabilityConfig(
        target=target,
        draws=recipe.stability.draws,
        calibration=recipe.calibration,
        quantize=recipe.quantize,
    )
    roles = {role: engine.parents[role] for role in ("source", "images", "calibration")}
    parents = {**roles, "engine": engine.name, "inspection": "inspection"}
    return Step(f"stability:{target}", "stability", config, parents)


def _reference_steps(engines: Sequence[Step], model: Step, trained: Step) -> list[Step]:
    """Return the full-precision engines of the trained model, for those of the compressed one."""
    first = {model.name: trained.name, model.parents["images"]: trained.parents["images"]}

    def rename(parent: str) -> str:
        return parent + TRAINED if parent.startswith("engine:") else first.get(parent, parent)

    return [
        Step(
            step.name + TRAINED,
            step.stage,
            step.config,
            {role: rename(parent) for role, parent in step.parents.items()},
        )
        for step in engines
        if step.name.endswith(f":{FULL_PRECISION}")
    ]


def _evaluation_step(recipe: Recipe, engine: Step, compared: Sequence[Step]) -> Step:
    """Return the step that judges an engine, after that of the engine that it is derived from.

    An engine that comes straight from a compressed model is judged after that of the trained one,
    whose sensitivity its threshold keeps.
    """
    parents = {"engine": engine.name, "images": engine.parents["images"]}
    before = engine.parents["source"]
    if not before.startswith("engine:"):
        before = engine.name + TRAINED
    if any(step.name == before for step in compared):
        parents["parent"] = before.replace("engine", "evaluation", 1)
    name = engine.name.replace("engine", "evaluation", 1)
    return Step(name, "evaluate", recipe.evaluate, parents)


def _explanation_steps(recipe: Recipe, model: Step, evaluations: list[str]) -> list[Step]:
    """Return the step of the heatmaps, if any are wanted."""
    if recipe.explain.images == 0:
        return []
    parents = {"model": model.name, "images": model.parents["images"]}
    if "evaluation:keras:float32" in evaluations:
        parents["evaluation"] = "evaluation:keras:float32"
    config = ExplainConfig(**recipe.explain.model_dump())
    return [Step("explanation", "explain", config, parents)]


def _bundle_steps(recipe: Recipe, engines: list[str]) -> list[Step]:
    """Return one step per device, of the engine that fits it best."""
    steps = []
    for device in recipe.bundle:
        engine = find_bundle_target(device).choose(engines)
        parents = {
            "engine": f"engine:{engine}",
            "evaluation": f"evaluation:{engine}",
            "benchmark": "benchmark",
        }
        steps.append(Step(f"bundle:{device}", "bundle", BundleConfig(target=device), parents))
    return steps


def describe_plan(plan: Plan) -> list[dict[str, Any]]:
    """Return the plan as plain documents, for ``run --dry-run``."""
    return [
        {
            "step": step.name,
            "stage": step.stage,
            "parents": dict(step.parents),
            "config": step.config.model_dump(mode="json"),
        }
        for step in plan.steps
    ]
