"""The steps of a run: each a stage with its config and the steps of its parents."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from lesiontk.bench.device import DeviceBench
from lesiontk.compress.model_history import find_trained
from lesiontk.recipe import Recipe
from lesiontk.stage import StageConfig, StepId

Roles = dict[str, StepId]
"""Role of a parent -> the step that makes it."""


@dataclass(frozen=True, slots=True)
class Step:
    """One stage with its config; `parents` maps each role to its step."""

    name: StepId
    stage: str
    config: StageConfig
    parents: Mapping[str, StepId] = field(default_factory=dict)

    def to_document(self) -> dict[str, Any]:
        """Return the step as a JSON document, for ``run --dry-run``."""
        return {
            "step": self.name,
            "stage": self.stage,
            "parents": dict(self.parents),
            "config": self.config.model_dump(mode="json"),
        }


@dataclass(frozen=True, slots=True)
class Plan:
    """The steps of a recipe in an order in which they can run."""

    recipe: Recipe
    steps: tuple[Step, ...]

    def __contains__(self, name: object) -> bool:
        return any(step.name == name for step in self.steps)

    def __getitem__(self, name: str) -> Step:
        return next(step for step in self.steps if step.name == name)

    def with_reported(self, known: Iterable[StepId]) -> Plan:
        """Return the plan with a report that also includes existing artefacts."""
        roles: Roles = {**self["report"].parents, **{name: name for name in known}}
        report = replace(self["report"], parents=roles)
        steps = (report if step.name == "report" else step for step in self.steps)
        return replace(self, steps=tuple(steps))

    def with_devices(self, devices: tuple[DeviceBench, ...]) -> Plan:
        """Return the plan with a benchmark that includes measurements of its engines elsewhere."""
        benchmark = self["benchmark"]
        config = benchmark.config.model_copy(update={"devices": devices})
        made = replace(benchmark, config=config)
        steps = (made if step.name == "benchmark" else step for step in self.steps)
        return replace(self, steps=tuple(steps))

    @property
    def models(self) -> tuple[Step, ...]:
        """Training and each compression, in their order."""
        return tuple(step for step in self.steps if step.name.kind == "model")

    @property
    def model(self) -> StepId:
        """The step whose model is converted: the last of training and compression."""
        return self.models[-1].name

    @property
    def trained(self) -> StepId:
        """The step of the trained model, before compression."""
        return find_trained_step(self.models).name


def find_trained_step(models: Sequence[Step]) -> Step:
    """Return the step of the trained model, before compression, among the steps of a line."""
    return models[find_trained(step.stage for step in models)]
