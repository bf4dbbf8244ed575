"""The steps that make, evaluate and examine engines."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from lesiontk.backends import BACKENDS, parse_target
from lesiontk.bench.benchmark import FULL_PRECISION
from lesiontk.errors import MissingRequirementError, UsageError
from lesiontk.evaluate.search_criterion import list_guiding
from lesiontk.recipe import Recipe
from lesiontk.stage import REFERENCE, EngineName, StepId
from lesiontk.stages.bench import find_reference
from lesiontk.stages.convert import ConvertConfig
from lesiontk.stages.flips import FlipsConfig
from lesiontk.stages.ranges import RangesConfig
from lesiontk.stages.robustness import RobustnessConfig
from lesiontk.stages.sensitivity import SensitivityConfig
from lesiontk.stages.stability import StabilityConfig
from lesiontk.technique import LEARNED_RANGES, TECHNIQUES
from lesiontk.workflow.steps import Step

CALIBRATION = StepId("calibration")


def plan_engines(recipe: Recipe, model: Step) -> list[Step]:
    """Return one step per target, after the steps that it is derived from.

    These are another target, and for a calibrated one the ranges of that target's tensors.
    """
    planned = _EnginePlan(recipe, model)
    for target in recipe.convert:
        planned.add(target)
    return list(planned.steps.values())


class _EnginePlan:
    """The steps so far; a common target is added once."""

    def __init__(self, recipe: Recipe, model: Step) -> None:
        self.steps: dict[StepId, Step] = {}
        self._recipe, self._model = recipe, model
        self._images = model.parents["images"]

    def add(self, target: str) -> StepId:
        """Add a target's engine with its requirements, and return its step."""
        name = StepId("engine", target)
        if name in self.steps:
            return name
        backend_name, precision = parse_target(target)
        backend = BACKENDS.get(backend_name)()
        availability = backend.available()
        if not availability.available:
            raise MissingRequirementError(f"{target}: {availability.reason}")
        info = backend.info.precisions[precision]
        parents = {"images": self._images}
        if info.derived_from == "model":
            parents["source"] = self._model.name
        else:
            parents |= {"source": self.add(info.derived_from), "model": self._model.name}
        if info.calibrated:
            if self._recipe.data.split.leaky:
                raise UsageError(
                    f"{target} requires calibration images that share no lesion with the test "
                    "split, "
                    "but this split leaks; expected only full-precision engines in `convert`."
                )
            parents["calibration"] = CALIBRATION
            if _exposes_activations(parents["source"]):
                parents["ranges"] = self._add_ranges(parents["source"])
            if info.mixed:
                sensitivity = _sensitivity_step(self._recipe, backend_name, parents)
                self.steps[sensitivity.name] = sensitivity
                parents["sensitivity"] = sensitivity.name
        config = ConvertConfig(
            target=target,
            quantize=self._recipe.quantize if info.calibrated else None,
            verify=self._recipe.verify,
        )
        self.steps[name] = Step(name, "convert", config, parents)
        return name

    def _add_ranges(self, engine: StepId) -> StepId:
        name = engine.of_kind("ranges")
        parents = {"source": engine, "images": self._images, "calibration": CALIBRATION}
        if has_learned_ranges(self._model):
            parents["model"] = self._model.name
        origin = self.steps[engine].parents["source"]
        if _exposes_activations(origin):
            parents |= {"known": self._add_ranges(origin), "origin": origin}
        self.steps[name] = Step(name, "ranges", RangesConfig(), parents)
        return name


def has_learned_ranges(model: Step) -> bool:
    """Return whether the ranges of a model's tensors were learned in training."""
    return model.stage in TECHNIQUES and LEARNED_RANGES in TECHNIQUES.get(model.stage).info.leaves


def _exposes_activations(source: StepId) -> bool:
    """Return whether a step makes an engine whose back end exposes its activations."""
    if source.kind != "engine":
        return False
    backend, _ = parse_target(source.target)
    return BACKENDS.get(backend).info.exposes_activations


def _sensitivity_step(recipe: Recipe, backend: str, parents: Mapping[str, StepId]) -> Step:
    """Return the step that finds the layers that stay in float, with the engine's parents."""
    config = SensitivityConfig(
        backend=backend,
        quantize=recipe.quantize,
        rule=recipe.sensitivity,
        gate=list_guiding(recipe.gate),
    )
    roles = ("source", "images", "calibration", "ranges")
    measured = {role: parents[role] for role in roles if role in parents}
    return Step(StepId("sensitivity", backend), "sensitivity", config, measured)


def plan_stability(recipe: Recipe, engines: Sequence[Step], model: Step) -> list[Step]:
    """Return a step for each engine that is calibrated to int8 throughout, if requested."""
    if not recipe.stability.draws:
        return []
    int8 = [e for e in engines if "calibration" in e.parents and "sensitivity" not in e.parents]
    return [_stability_step(recipe, engine, model) for engine in int8]


def _stability_step(recipe: Recipe, engine: Step, model: Step) -> Step:
    target = engine.name.target
    if has_learned_ranges(model):
        raise UsageError(
            f"the ranges of {target} were learned ({model.stage}) and do not depend on calibration "
            "images; expected stability.draws 0."
        )
    config = StabilityConfig(
        target=target,
        draws=recipe.stability.draws,
        calibration=recipe.calibration,
        quantize=recipe.quantize,
    )
    roles = {role: engine.parents[role] for role in ("source", "images", "calibration")}
    parents = {**roles, "engine": engine.name, "inspection": StepId("inspection")}
    return Step(engine.name.of_kind("stability"), "stability", config, parents)


def plan_robustness(
    recipe: Recipe, engines: Sequence[Step], compared: Sequence[Step], data: Sequence[Step]
) -> list[Step]:
    """Return a step for each calibrated engine, if requested."""
    if not recipe.robustness.images:
        return []
    calibrated = [engine for engine in engines if "calibration" in engine.parents]
    return [robustness_step(recipe, engine.name.target, compared, data) for engine in calibrated]


def robustness_step(
    recipe: Recipe, target: str, compared: Iterable[Step], data: Iterable[Step]
) -> Step:
    """Return the step that compares an engine with its parent on corrupted images.

    `compared` are the steps of engines, among them the parent's, `data` those of the data. Raises
    `UsageError` for an engine without a parent.
    """
    pair = _find_pair(target, compared)
    if pair is None:
        raise UsageError(
            f"{target} is the model in full precision and has no parent to be compared with; "
            "expected another engine, such as tflite:int8."
        )
    rule = recipe.robustness
    config = RobustnessConfig(
        path=recipe.data.path,
        target=target,
        images=rule.images,
        corruptions=rule.corruptions,
        seed=rule.seed,
        statistics=recipe.evaluate,
    )
    roles = [*pair, *(name.of_kind("evaluation") for name in pair)]
    roles += [step.name for step in data if step.name.kind in ("split", "dataset")]
    return Step(StepId("robustness", target), "robustness", config, {name: name for name in roles})


def plan_flips(
    recipe: Recipe, engines: Sequence[Step], compared: Sequence[Step], model: Step
) -> list[Step]:
    """Return a step for each engine of reduced precision, or of a compressed network.

    Without heatmaps (``explain.images: 0``) a report contains no picture at all.
    """
    if not recipe.explain.flips or not recipe.explain.images:
        return []
    steps = []
    for engine in engines:
        target = engine.name.target
        pair = _find_pair(target, compared)
        if pair is None or not _is_reduced(target, pair):
            continue
        config = FlipsConfig(target=target, images=recipe.explain.flips)
        parents: Mapping[str, StepId] = {
            "model": model.name,
            "images": model.parents["images"],
            **{(name := step.of_kind("evaluation")): name for step in pair},
        }
        steps.append(Step(StepId("flips", target), "flips", config, parents))
    return steps


def _is_reduced(target: str, pair: Sequence[StepId]) -> bool:
    return parse_target(target)[1] != FULL_PRECISION or pair[-1].variant == REFERENCE


def _find_pair(target: str, compared: Iterable[Step]) -> tuple[StepId, StepId] | None:
    """Return the steps of an engine and of its full-precision parent, None without a parent."""
    steps = {EngineName(s.name.target, reference=s.name.variant == REFERENCE): s for s in compared}
    parent = find_reference(EngineName(target), steps)
    return None if parent is None else (steps[EngineName(target)].name, steps[parent].name)


def plan_references(engines: Sequence[Step], model: Step, trained: Step) -> list[Step]:
    """Return the full-precision engines of the trained model, for those of the compressed one."""
    first = {model.name: trained.name, model.parents["images"]: trained.parents["images"]}

    def rename(parent: StepId) -> StepId:
        if parent.kind == "engine":
            return StepId("engine", parent.target, REFERENCE)
        return first.get(parent, parent)

    return [
        Step(
            rename(step.name),
            step.stage,
            step.config,
            {role: rename(parent) for role, parent in step.parents.items()},
        )
        for step in engines
        if parse_target(step.name.target)[1] == FULL_PRECISION
    ]


def plan_evaluation(recipe: Recipe, engine: Step, compared: Sequence[Step]) -> Step:
    """Return the step that evaluates an engine, after that of the engine that it is derived from.

    An engine derived directly from a compressed model is evaluated after that of the trained one,
    whose sensitivity its threshold preserves.
    """
    parents = {
        "engine": engine.name,
        "images": engine.parents["images"],
        "inspection": StepId("inspection"),
    }
    before = engine.parents["source"]
    if before.kind != "engine":
        before = StepId("engine", engine.name.target, REFERENCE)
    if before != engine.name and any(step.name == before for step in compared):
        parents["parent"] = before.of_kind("evaluation")
    return Step(engine.name.of_kind("evaluation"), "evaluate", recipe.evaluate, parents)
