"""What removes parts of a network has in common: a budget, and the fine-tuning after it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from lesiontk.backends import BACKENDS, parse_target
from lesiontk.compress.prune_budget import (
    CountBudget,
    LatencyBudget,
    LatencyGoal,
    PruneBudget,
    check_latency,
)
from lesiontk.data.images import ImageSet
from lesiontk.errors import UsageError
from lesiontk.recipe import TrainSection
from lesiontk.records import Footprint
from lesiontk.report.formatting import format_latency, format_percent
from lesiontk.report.wording import name_engine
from lesiontk.stage import Context, StageConfig
from lesiontk.stages.constrained_training import check_recovery
from lesiontk.stages.engine_tools import tools_of_conversion
from lesiontk.stages.parent_predictions import DistillRule

SHARES = ("keep_macs", "keep_parameters", "keep_latency")
SHARE_OPTIONS = {
    "keep_macs": "Share of the operations to keep.",
    "keep_parameters": "Share of the parameters to keep.",
    "keep_latency": "Share of the measured latency to keep.",
}


class RemovalConfig(StageConfig):
    """The budget, of which there is one, and the fine-tuning."""

    keep_macs: float | None = Field(None, gt=0, lt=1, description="share that may stay")
    keep_parameters: float | None = Field(None, gt=0, lt=1, description="share that may stay")
    keep_latency: float | None = Field(
        None, gt=0, lt=1, description="share that may stay, measured on `latency_on`"
    )
    latency_on: str = Field("tflite:int8", description="the engine whose latency is measured")
    distill: DistillRule | None = DistillRule()
    recover: TrainSection = TrainSection(epochs=4, learning_rate=5e-4, ema=0.99)

    @model_validator(mode="after")
    def _check_budget(self) -> RemovalConfig:
        if sum(getattr(self, name) is not None for name in SHARES) != 1:
            raise ValueError(f"expected one of {', '.join(SHARES)}")
        if self.keep_latency is None:
            self.refuse_idle("latency_on", belongs_to="keep_latency")
        check_recovery(self.recover)
        return self

    @property
    def share(self) -> float:
        """The share that may stay, of any budget."""
        return next(float(v) for n in SHARES if (v := getattr(self, n)) is not None)

    def check_engine(self) -> None:
        """Raise `UsageError` for an unknown engine, or one with layers that are chosen later.

        Raises `MissingRequirementError` for one whose latency cannot be measured here.
        """
        name, precision = parse_target(self.latency_on)
        if self.keep_latency is not None:
            check_latency(self.latency_on, BACKENDS.get(name)())
        if BACKENDS.get(name).info.precisions[precision].mixed:
            raise UsageError(
                f"latency_on is {self.latency_on}, whose float layers are unknown before "
                "pruning; expected another precision."
            )

    def list_timing_tools(self) -> tuple[str, ...]:
        """Return the tools that decide a budget of latency; none for another."""
        return () if self.keep_latency is None else tools_of_conversion(self.latency_on)

    def make_budget(
        self, path: Path, model: Any, images: ImageSet, context: Context
    ) -> PruneBudget:
        """Return the budget of the model in a file."""
        if self.keep_latency is not None:
            return LatencyBudget(self.latency_on, self.keep_latency, path, model, images, context)
        return CountBudget("macs" if self.keep_macs else "parameters", model)


def describe_latency(goal: LatencyGoal | None, footprint: Footprint | None) -> str:
    """Return the latency budget and the measured latency, which a history does not contain."""
    if goal is None:
        return ""
    budget = (
        f"; {format_percent(goal.wanted)} of the latency on {name_engine(goal.engine)} was the "
        "budget"
    )
    if footprint is None:
        return budget
    before, after = footprint.before.median_ms, footprint.after.median_ms
    exceeded = ", which exceeds the budget" if after > goal.wanted * before else ""
    return (
        f"{budget}, and {format_percent(after / before)} measured: {format_latency(after)}, before "
        f"{format_latency(before)} (n = {footprint.n}){exceeded}"
    )
