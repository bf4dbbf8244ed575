"""The candidates of a search: the recipe and the plan of each assignment of a space."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lesiontk.backends import BACKENDS, parse_target
from lesiontk.bench.benchmark import FULL_PRECISION
from lesiontk.errors import DataError, LesionTKError, UsageError
from lesiontk.recipe import Recipe
from lesiontk.records import Artefact
from lesiontk.search.criteria import Criteria, explain_no_parent
from lesiontk.search.space import COMPRESS, RECIPE, SearchSpace, show_setting
from lesiontk.search.trial_record import Assignment
from lesiontk.stage import EngineName, StepId, collect_engines
from lesiontk.stages.bench import find_reference
from lesiontk.stages.time_engine import TimeConfig
from lesiontk.stages.validate import ValidateConfig
from lesiontk.store import Store
from lesiontk.workflow.choose_recipe import Settings, choose_recipe, list_overrides
from lesiontk.workflow.runner import build_step
from lesiontk.workflow.steps import Plan, Step
from lesiontk.workflow.train import plan_run


@dataclass(frozen=True, slots=True)
class SearchOptions:
    """What a call adds to a space: the images, and where the trials are recorded.

    `storage` is the URL of a database that machines share; by default it is a file of the
    workspace.
    """

    name: str
    data: Path | None = None
    accept_near_duplicates: bool = False
    storage: str | None = None


class Candidates:
    """The candidates of a space; each is an ordinary plan over the ordinary store."""

    def __init__(
        self, store: Store, space: SearchSpace, options: SearchOptions, criteria: Criteria
    ) -> None:
        self.store, self.space, self.options, self.criteria = store, space, options, criteria

    def recipe_of(self, chosen: Assignment) -> Recipe:
        """Return the recipe of a candidate, with its engine and those it is compared with."""
        candidate = self.space.candidate_of(chosen)
        backend = parse_target(candidate.target)[0]
        compared = ["keras:float32"]
        if FULL_PRECISION in BACKENDS.get(backend).info.precisions:
            compared.append(f"{backend}:{FULL_PRECISION}")
        settings = {
            **candidate.settings,
            "convert": list(dict.fromkeys([*compared, candidate.target])),
            "bundle": [],
        }
        return choose_base(candidate.recipe, self.options, settings)

    def plan_of(self, chosen: Assignment) -> Plan:
        """Return the checked plan of a candidate.

        Errors as `plan_run`, and `UsageError` for one without the parent of a constraint.
        """
        plan = plan_run(self.store, self.recipe_of(chosen), gated=False)
        target = self.space.candidate_of(chosen).target
        engine = StepId("engine", target)
        steps = [_validation_step(plan, engine)]
        before = find_parent(plan, target)
        if before is not None:
            steps.append(_validation_step(plan, before))
        else:
            for gate in self.criteria.constraints:
                if gate.relative:
                    raise UsageError(explain_no_parent(gate, target))
        rule = TimeConfig(rule=plan.recipe.bench)
        parents = {"engine": engine, "images": plan[engine].parents["images"]}
        steps.append(Step(engine.of_kind("timing"), "time", rule, parents))
        return replace(plan, steps=(*plan.steps, *steps))

    def check_values(self) -> None:
        """Raise `UsageError` for a value that no candidate can have, before any work."""
        for chosen, key, value in list_probes(self.space):
            fault: LesionTKError | None = None
            for name in self.space.vary.get(RECIPE, [self.space.recipe]):
                try:
                    self.plan_of({**chosen, RECIPE: name})
                except (UsageError, DataError) as error:
                    fault = fault or error
                else:
                    break
            else:
                of = f"{key}: {show_setting(value)} is not possible: " if key else ""
                raise UsageError(f"{of}{fault}") from fault

    def build_split(self) -> Artefact:
        """Return the split of all candidates, made first so that bad images end the search."""
        chosen = next(list_probes(self.space))[0]
        return build_step(self.plan_of(chosen), "split", self.store, {})


def list_probes(space: SearchSpace) -> Iterator[tuple[Assignment, str, Any]]:
    """Yield the first candidate, then for each key and value a candidate that has it.

    The others have their first value; an option of a technique has the first chain with it.
    """

    def complete(given: Assignment) -> Assignment:
        chosen: dict[str, Any] = {}
        for dimension in space.dimensions:
            if space.is_active(dimension.key, chosen):
                chosen[dimension.key] = given.get(dimension.key, dimension.ends[0])
        return chosen

    yield complete({}), "", None
    chains = next((d.choices for d in space.dimensions if d.key == COMPRESS), ())
    for dimension in space.dimensions:
        fitting = [{COMPRESS: c} for c in chains if space.is_active(dimension.key, {COMPRESS: c})]
        given = fitting[0] if fitting else {}
        for value in dimension.ends:
            chosen = complete({**given, dimension.key: value})
            if dimension.key not in chosen:
                raise UsageError(
                    f"{dimension.key} never applies: no chain of `compress` has that technique."
                )
            yield chosen, dimension.key, value


def choose_base(name: Any, options: SearchOptions, settings: Settings) -> Recipe:
    """Return a recipe of a space with these settings. Raises as `choose_recipe`."""
    return choose_recipe(
        str(name),
        data=options.data,
        accept_near_duplicates=options.accept_near_duplicates,
        overrides=list_overrides(settings),
    )


def check_comparable(name: str, recipe: Recipe, first: Recipe) -> None:
    """Raise `UsageError` for recipes whose candidates could not be compared."""
    shared = ("source", "path", "task", "split", "synthetic", "max_failures")
    differing = [f"data.{key}" for key in shared
                 if getattr(recipe.data, key) != getattr(first.data, key)]  # fmt: skip
    differing += [key for key in ("evaluate", "verify", "bench")
                  if getattr(recipe, key) != getattr(first, key)]  # fmt: skip
    if differing:
        raise UsageError(
            f"the recipes {first.name} and {name} differ in {', '.join(differing)}, so their "
            "engines could not be compared; expected the same, such as by `set`."
        )


def _validation_step(plan: Plan, engine: StepId) -> Step:
    parents = {"engine": engine, "images": plan[engine].parents["images"]}
    return Step(engine.of_kind("validation"), "validate", ValidateConfig(), parents)


def find_parent(plan: Plan, target: str) -> StepId | None:
    """Return the engine that a candidate is compared with, as in a benchmark."""
    engines = collect_engines({step.name: step for step in plan.steps}, "engine")
    found = find_reference(EngineName(target), engines)
    return None if found is None else next(
        step.name
        for step in plan.steps
        if step.name.kind == "engine"
        and step.name.target == found.target
        and bool(step.name.variant) == found.reference
    )  # fmt: skip
