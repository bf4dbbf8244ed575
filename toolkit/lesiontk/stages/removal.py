"""What removes parts of a network has in common: a budget, and the fine-tuning after it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from lesiontk.backends import BACKENDS, parse_target
from lesiontk.bench.remote import open_transport
from lesiontk.compress.footprint import compare_engines
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
from lesiontk.stage import ADDED_LATER, Context, StageConfig
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
    latency_device: str | None = Field(
        None,
        json_schema_extra=ADDED_LATER,
        description="where it is measured: ssh://USER@HOST, adb://SERIAL, or null for this machine",
    )
    distill: DistillRule | None = DistillRule()
    recover: TrainSection = TrainSection(epochs=4, learning_rate=5e-4, ema=0.99)

    @model_validator(mode="after")
    def _check_budget(self) -> RemovalConfig:
        if sum(getattr(self, name) is not None for name in SHARES) != 1:
            raise ValueError(f"expected one of {', '.join(SHARES)}")
        if self.keep_latency is None:
            self.refuse_idle("latency_on", "latency_device", belongs_to="keep_latency")
        check_recovery(self.recover)
        return self

    @property
    def share(self) -> float:
        """The share that may stay, of any budget."""
        return next(float(v) for n in SHARES if (v := getattr(self, n)) is not None)

    def check_engine(self) -> None:
        """Raise `UsageError` for an unknown engine or device, or layers that are chosen later.

        Raises `MissingRequirementError` for one whose latency cannot be measured here, or for a
        device without its client.
        """
        name, precision = parse_target(self.latency_on)
        if self.latency_device is not None:
            open_transport(self.latency_device)
        elif self.keep_latency is not None:
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
        """Return the budget of the model in a file; its device is reached before all work."""
        if self.keep_latency is None:
            return CountBudget("macs" if self.keep_macs else "parameters", model)
        if self.latency_device is not None:
            from lesiontk.stages.remote_timing import find_bundle  # heavy for a help

            find_bundle(open_transport(self.latency_device))
        goal = LatencyGoal(self.latency_on, self.keep_latency, self.latency_device or "")

        def compare(before: Path, after: Path) -> Footprint:
            if self.latency_device is None:
                return compare_engines(self.latency_on, before, after, images, context)
            from lesiontk.stages.remote_timing import RemoteDevice, compare_on  # heavy for a help

            device = RemoteDevice(self.latency_device)
            return compare_on(device, self.latency_on, before, after, context.progress)

        return LatencyBudget(goal, path, model, images, context, compare)


def describe_latency(goal: LatencyGoal | None, footprint: Footprint | None) -> str:
    """Return the latency budget and the measured latency, which a history does not contain."""
    if goal is None:
        return ""
    budget = (
        f"; {format_percent(goal.wanted)} of the latency on {name_engine(goal.engine)}"
        f"{f' on {goal.device}' if goal.device else ''} was the budget"
    )
    if footprint is None:
        return budget
    before, after = footprint.before.median_ms, footprint.after.median_ms
    exceeded = ", which exceeds the budget" if after > goal.wanted * before else ""
    return (
        f"{budget}, and {format_percent(after / before)} measured: {format_latency(after)}, before "
        f"{format_latency(before)} (n = {footprint.n}){exceeded}"
    )
