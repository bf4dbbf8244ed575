"""Stage: channel pruning, a smaller model that is faster on any device."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from lesiontk.backends import BACKENDS, parse_target
from lesiontk.backends.keras.backend import load_model
from lesiontk.compress.channel_budget import (
    COSTS,
    Scope,
    choose_channels,
    macs_of,
    parameters_of,
)
from lesiontk.compress.channel_graph import ChannelGraph, derive_channels
from lesiontk.compress.channel_statistics import collect_channel_statistics
from lesiontk.compress.importance import CRITERIA, score_channels
from lesiontk.compress.keras_layers import read_layers, remove_channels
from lesiontk.compress.layers import Layer, LayerWidths, count_macs
from lesiontk.compress.model_history import derive_model, recalls_to_keep
from lesiontk.compress.prune_budget import (
    CountBudget,
    LatencyBudget,
    LatencyGoal,
    PruneBudget,
    check_latency,
)
from lesiontk.data.images import ImageSet, open_images
from lesiontk.document import Record, write_table
from lesiontk.errors import UsageError
from lesiontk.recipe import TrainSection
from lesiontk.records import (
    MODEL_FILE,
    Artefact,
    Footprint,
    ModelFacts,
    ModelStep,
    ValidationScores,
)
from lesiontk.report.formatting import count_things, format_latency, format_percent
from lesiontk.report.wording import name_engine
from lesiontk.stage import Context, StageConfig, StageOutput
from lesiontk.stages.constrained_training import check_recovery
from lesiontk.stages.engine_tools import tools_of_conversion
from lesiontk.stages.model_artefact import write_outcome
from lesiontk.stages.parent_predictions import DistillRule, read_soft_targets
from lesiontk.technique import RECOVERY, Technique, TechniqueInfo
from lesiontk.train.loop import score_model, train_model

SHARES = ("keep_macs", "keep_parameters", "keep_latency")
WIDTHS = "widths.csv"
"""Layer, channels before and after, MACs before and after."""


class PruneConfig(StageConfig):
    """The budget, the importance criterion, and the fine-tuning."""

    kind: Literal["channels"] = Field("channels", description="what is removed")
    criterion: str = Field("taylor", description="one of the registered criteria")
    scope: Scope = Field("global", description="rank all channels together, or within each layer")
    keep_macs: float | None = Field(None, gt=0, lt=1, description="share that may stay")
    keep_parameters: float | None = Field(None, gt=0, lt=1, description="share that may stay")
    keep_latency: float | None = Field(
        None, gt=0, lt=1, description="share that may stay, measured on `latency_on`"
    )
    latency_on: str = Field("tflite:int8", description="the engine whose latency is measured")
    multiple: int = Field(8, ge=1, description="widths are multiples of it, which kernels prefer")
    least_share: float = Field(0.1, gt=0, le=1, description="minimum share of each layer's width")
    iterations: int = Field(1, ge=1, description="rounds of pruning and fine-tuning")
    images: int = Field(256, ge=8, description="training images for the criterion taylor")
    distill: DistillRule | None = DistillRule()
    recover: TrainSection = TrainSection(epochs=4, learning_rate=5e-4, ema=0.99)

    @model_validator(mode="after")
    def _check_target(self) -> PruneConfig:
        if sum(getattr(self, name) is not None for name in SHARES) != 1:
            raise ValueError(f"expected one of {', '.join(SHARES)}")
        if self.criterion != "taylor":
            self.refuse_idle("images", belongs_to="the criterion taylor")
        if self.keep_latency is None:
            self.refuse_idle("latency_on", belongs_to="keep_latency")
        check_recovery(self.recover)
        return self

    @property
    def share(self) -> float:
        """The share that may stay, of any budget."""
        return next(float(v) for n in SHARES if (v := getattr(self, n)) is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class PruningRound(Record):
    """One round of pruning and fine-tuning.

    `wanted` and `kept` are shares of the original, `next` is the lowest share with one more group
    of channels; the last two are None for a latency budget.
    """

    removed: int
    wanted: float
    kept: float | None
    next: float | None
    validation_before: ValidationScores
    validation_after: ValidationScores


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruning(Record):
    """The pruning of a network: its MACs and parameters before and after.

    Widths are multiples of `multiple`. `latency` is None for a budget of operations or parameters.
    """

    criterion: str
    multiple: int
    macs: tuple[int, int]
    parameters: tuple[int, int]
    rounds: tuple[PruningRound, ...]
    latency: LatencyGoal | None = None


class PruneStage(Technique):
    """Produces a physically smaller ``model.keras``, its curves, and the widths of its layers."""

    info: ClassVar[TechniqueInfo] = TechniqueInfo(
        name="prune",
        version=7,
        accepts={"model": "model", "images": "images", "soft_targets": "soft_targets"},
        config=PruneConfig,
        tools=("tensorflow", "tf_keras", "numpy"),
        inherits=RECOVERY,
        help="""Remove the least important channels of MODEL and fine-tune it.

        The result is a smaller network, faster on any device. --set accepts the
        technique's keys, such as recover.epochs=8 or multiple=16.""",
        options={
            "keep_macs": "Share of the operations to keep.",
            "keep_parameters": "Share of the parameters to keep.",
            "keep_latency": "Share of the measured latency to keep.",
            "criterion": "taylor (default), l1, l2, geometric_median, …",
            "iterations": "Rounds of pruning and fine-tuning; default 1.",
        },
    )

    def check(self, config: PruneConfig) -> None:
        """Raise `UsageError` for an unknown criterion or engine.

        Raises `MissingRequirementError` for an engine whose latency cannot be measured here.
        """
        CRITERIA.get(config.criterion)
        name, precision = parse_target(config.latency_on)
        if config.keep_latency is not None:
            check_latency(config.latency_on, BACKENDS.get(name)())
        if BACKENDS.get(name).info.precisions[precision].mixed:
            raise UsageError(
                f"latency_on is {config.latency_on}, whose float layers are unknown before "
                "pruning; expected another precision."
            )

    def list_tools(self, config: PruneConfig, parents: Mapping[str, Artefact]) -> tuple[str, ...]:
        timed = () if config.keep_latency is None else tools_of_conversion(config.latency_on)
        return (*self.info.tools, *timed)

    def run(
        self, parents: Mapping[str, Artefact], config: PruneConfig, context: Context
    ) -> StageOutput:
        started = time.perf_counter()
        images = open_images(parents["images"])
        path = parents["model"].file(MODEL_FILE)
        model = load_model(path)
        original = read_layers(model)
        soft_targets = read_soft_targets(parents, config.distill)
        budget: PruneBudget
        if config.keep_latency is not None:
            budget = LatencyBudget(
                config.latency_on, config.keep_latency, path, model, images, context
            )
        else:
            budget = CountBudget("macs" if config.keep_macs else "parameters", model)
        parent = parents["model"].read_facts(ModelFacts)
        rounds: list[PruningRound] = []
        for number in range(1, config.iterations + 1):
            scratch = context.scratch / f"round-{number}"
            scratch.mkdir(exist_ok=True)
            share = config.share ** (number / config.iterations)
            cut = cut_channels(model, path, config, share, budget, images, scratch, context)
            before = score_model(cut.build(None), images)
            model, state = train_model(
                cut.build,
                images,
                config.recover,
                scratch,
                context.progress,
                soft_targets=soft_targets,
                keep_recalls=recalls_to_keep(parent, self.info.name),
            )
            rounds.append(
                PruningRound(
                    removed=len(cut.removed),
                    wanted=share,
                    kept=budget.count(model),
                    next=budget.next_share(cut.graph, cut.removed, config.multiple),
                    validation_before=before,
                    validation_after=state.best_scores(before.n),
                )
            )
            path = scratch / MODEL_FILE
            model.save(str(path))
        pruned = read_layers(model)
        widths = list_widths(original, pruned)
        write_table(context.directory / WIDTHS, LayerWidths, widths)
        outcome = write_outcome(
            model,
            state,
            images,
            parents["images"],
            replace(context, scratch=scratch),
            derive_model(
                parent,
                self.info.name,
                Pruning(
                    criterion=config.criterion,
                    multiple=config.multiple,
                    macs=(macs_of(original), macs_of(pruned)),
                    parameters=(parameters_of(original), parameters_of(pruned)),
                    rounds=tuple(rounds),
                    latency=budget.goal,
                ),
            ),
            started=started,
        )
        footprint = budget.measure(model)
        if footprint is None:
            return outcome
        return replace(outcome, measured={"footprint": footprint.to_document()})

    def describe(self, step: ModelStep) -> str:
        """Return the remaining cost and the criterion, as a sentence; of a latency budget also the
        goal."""
        pruned = step.read_change(Pruning)
        macs, parameters = (after / before for before, after in (pruned.macs, pruned.parameters))
        return (
            f"{format_percent(macs)} of the operations and {format_percent(parameters)} of the "
            f"parameters remain, chosen by {pruned.criterion.replace('_', ' ')} in "
            f"{count_things(len(pruned.rounds), 'round')}"
            f"{_describe_latency(pruned.latency, step.footprint)}"
        )

    def advise(self, step: ModelStep) -> str:
        """Return the budget, and why less remains; empty for a latency budget."""
        pruned = step.read_change(Pruning)
        last = pruned.rounds[-1]
        if last.kept is None or last.next is None:
            return ""
        multiple = pruned.multiple
        finer = f" (--set multiple={multiple // 2} is closer)" if multiple > 1 else ""
        return (
            f"budget {format_percent(last.wanted)}, kept {format_percent(last.kept)}: with the "
            f"next group of channels it would be {format_percent(last.next)}{finer}"
        )


def _describe_latency(goal: LatencyGoal | None, footprint: Footprint | None) -> str:
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


@dataclass(frozen=True, slots=True)
class PrunedModel:
    """A model on disk, and the channels to remove."""

    source: Path
    graph: ChannelGraph
    removed: frozenset[int]

    def build(self, size: int | None) -> Any:
        """Return the smaller model with the remaining weights."""
        return remove_channels(load_model(self.source), self.graph, self.removed)


def cut_channels(
    model: Any,
    path: Path,
    config: PruneConfig,
    share: float,
    budget: PruneBudget,
    images: ImageSet,
    scratch: Path,
    context: Context,
) -> PrunedModel:
    """Choose the channels to remove from the model at `path`.

    The choice is stored in `scratch`, so that a resumed run builds the same model.
    """
    graph = derive_channels(read_layers(model))
    kept = scratch / "removed.json"
    if kept.is_file():
        return PrunedModel(path, graph, frozenset(json.loads(kept.read_text())))
    pixels = targets = None
    if config.criterion == "taylor":
        rows = images.draw_stratified("train", config.images, seed=config.recover.seed)
        pixels, targets = images.pixels[rows], images.targets[rows]
    channel_statistics = collect_channel_statistics(
        model, graph.layers, pixels, targets, context.progress
    )
    scores = score_channels(graph, channel_statistics, config.criterion)

    def choose(counted: str, limit: float) -> frozenset[int]:
        return choose_channels(
            graph,
            scores,
            limit,
            cost=COSTS[counted],
            scope=config.scope,
            multiple=config.multiple,
            least_share=config.least_share,
        )

    removed = budget.choose(
        share, choose, lambda chosen: PrunedModel(path, graph, chosen).build(None)
    )
    kept.write_text(json.dumps(sorted(removed)))
    return PrunedModel(path, graph, removed)


def list_widths(before: Sequence[Layer], after: Sequence[Layer]) -> list[LayerWidths]:
    """Return a row for each layer with weights."""
    macs = count_macs(before), count_macs(after)
    narrow = {layer.name: layer for layer in after}
    return [
        LayerWidths(
            layer=layer.name,
            kind=layer.kind,
            channels=layer.channels,
            kept=narrow[layer.name].channels,
            macs=macs[0][layer.name],
            macs_kept=macs[1][layer.name],
        )
        for layer in before
        if layer.name in macs[0]
    ]
