"""Stage: channel pruning, a smaller model that is faster on any device."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

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
    LatencyGoal,
    PruneBudget,
)
from lesiontk.data.images import ImageSet, open_images
from lesiontk.document import Record, write_table
from lesiontk.files.whole_files import write_whole
from lesiontk.records import (
    MODEL_FILE,
    Artefact,
    ModelFacts,
    ModelStep,
    ValidationScores,
)
from lesiontk.report.formatting import count_things, format_percent
from lesiontk.stage import Context, StageOutput
from lesiontk.stages.model_artefact import write_outcome
from lesiontk.stages.parent_predictions import read_soft_targets
from lesiontk.stages.removal import SHARE_OPTIONS, RemovalConfig, describe_latency
from lesiontk.technique import RECOVERY, Technique, TechniqueInfo
from lesiontk.train.loop import score_model, train_model

WIDTHS = "widths.csv"
"""Layer, channels before and after, MACs before and after."""


class PruneConfig(RemovalConfig):
    """The budget, the importance criterion, and the fine-tuning."""

    kind: Literal["channels"] = Field("channels", description="what is removed")
    criterion: str = Field("taylor", description="one of the registered criteria")
    scope: Scope = Field("global", description="rank all channels together, or within each layer")
    multiple: int = Field(8, ge=1, description="widths are multiples of it, which kernels prefer")
    least_share: float = Field(0.1, gt=0, le=1, description="minimum share of each layer's width")
    iterations: int = Field(1, ge=1, description="rounds of pruning and fine-tuning")
    images: int = Field(256, ge=8, description="training images for the criterion taylor")

    @model_validator(mode="after")
    def _check_criterion(self) -> PruneConfig:
        if self.criterion != "taylor":
            self.refuse_idle("images", belongs_to="the criterion taylor")
        return self


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
            **SHARE_OPTIONS,
            "criterion": "taylor (default), l1, l2, geometric_median, …",
            "iterations": "Rounds of pruning and fine-tuning; default 1.",
        },
    )

    def check(self, config: PruneConfig) -> None:
        """Raise `UsageError` for an unknown criterion, else as `RemovalConfig.check_engine`."""
        CRITERIA.get(config.criterion)
        config.check_engine()

    def list_tools(self, config: PruneConfig, parents: Mapping[str, Artefact]) -> tuple[str, ...]:
        return (*self.info.tools, *config.list_timing_tools())

    def run(
        self, parents: Mapping[str, Artefact], config: PruneConfig, context: Context
    ) -> StageOutput:
        started = time.perf_counter()
        images = open_images(parents["images"])
        path = parents["model"].file(MODEL_FILE)
        model = load_model(path)
        original = read_layers(model)
        soft_targets = read_soft_targets(parents, config.distill)
        budget = config.make_budget(path, model, images, context)
        parent = parents["model"].read_facts(ModelFacts)
        rounds: list[PruningRound] = []
        for number in range(1, config.iterations + 1):
            scratch = context.scratch / f"round-{number}"
            scratch.mkdir(exist_ok=True)
            share = config.share ** (number / config.iterations)
            cut = cut_channels(model, config, share, budget, images, scratch, context)
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
            f"{describe_latency(pruned.latency, step.footprint)}"
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


@dataclass(frozen=True, slots=True)
class PrunedModel:
    """A model, and the channels to remove."""

    source: Any
    graph: ChannelGraph
    removed: frozenset[int]

    def build(self, size: int | None) -> Any:
        """Return the smaller model with the remaining weights."""
        return remove_channels(self.source, self.graph, self.removed)


def cut_channels(
    model: Any,
    config: PruneConfig,
    share: float,
    budget: PruneBudget,
    images: ImageSet,
    scratch: Path,
    context: Context,
) -> PrunedModel:
    """Choose the channels to remove from a model.

    The choice is stored in `scratch`, so that a resumed run builds the same model.
    """
    graph = derive_channels(read_layers(model))
    kept = scratch / "removed.json"
    if kept.is_file():
        return PrunedModel(model, graph, frozenset(json.loads(kept.read_text())))
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
        share, choose, lambda chosen: PrunedModel(model, graph, chosen).build(None)
    )
    write_whole({kept: json.dumps(sorted(removed)).encode()})
    return PrunedModel(model, graph, removed)


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
