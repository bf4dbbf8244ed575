"""Stage: depth pruning, a model without some of its residual blocks."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from pydantic import Field

from lesiontk.backends.keras.backend import load_model
from lesiontk.bench.measure import measure_profile
from lesiontk.compress.block_importance import measure_importance, remove_blocks
from lesiontk.compress.channel_budget import COSTS, macs_of, parameters_of
from lesiontk.compress.keras_layers import read_layers
from lesiontk.compress.layers import Layer, count_macs, count_weights
from lesiontk.compress.model_history import derive_model, recalls_to_keep
from lesiontk.compress.prune_budget import LatencyBudget, LatencyGoal, PruneBudget
from lesiontk.compress.residual_blocks import ResidualBlock, choose_blocks, find_blocks
from lesiontk.data.images import ImageSet, open_images
from lesiontk.document import Record, write_table
from lesiontk.errors import DataError
from lesiontk.files.whole_files import write_whole
from lesiontk.records import MODEL_FILE, Artefact, ModelFacts, ModelStep, ValidationScores
from lesiontk.report.formatting import count_things, format_percent
from lesiontk.stage import Context, StageOutput
from lesiontk.stages.model_artefact import write_outcome
from lesiontk.stages.parent_predictions import read_soft_targets
from lesiontk.stages.removal import SHARE_OPTIONS, RemovalConfig, describe_latency
from lesiontk.technique import RECOVERY, Technique, TechniqueInfo
from lesiontk.train.loop import score_model, train_model

BLOCKS = "blocks.csv"
"""A row for each `BlockRow`."""
PROFILE_ROUNDS = 30


class PruneBlocksConfig(RemovalConfig):
    """The budget, and the fine-tuning."""

    images: int = Field(128, ge=8, description="training images that measure the importance")


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockRow(Record):
    """A residual block, by its addition.

    `importance` is the mean Kullback-Leibler divergence of the network without it alone, `cost` its
    share of the network's operations, parameters or milliseconds, as the budget counts.
    """

    block: str
    layers: int
    importance: float
    cost: float
    removed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockPruning(Record):
    """The network before and after: MACs, parameters, blocks; and its scores before fine-tuning."""

    blocks: int
    removed: tuple[str, ...]
    macs: tuple[int, int]
    parameters: tuple[int, int]
    validation_before: ValidationScores
    validation_after: ValidationScores
    latency: LatencyGoal | None = None


class PruneBlocksStage(Technique):
    """Produces a shallower ``model.keras``, its curves, and its residual blocks."""

    info: ClassVar[TechniqueInfo] = TechniqueInfo(
        name="prune_blocks",
        version=1,
        accepts={"model": "model", "images": "images", "soft_targets": "soft_targets"},
        config=PruneBlocksConfig,
        tools=("tensorflow", "tf_keras", "numpy"),
        inherits=RECOVERY,
        help="""Remove the least important residual blocks of MODEL and fine-tune it.

        The result is a shallower network, faster on any device. Of the blocks whose
        cost is to go, those are removed without which the outputs change least. --set
        accepts the technique's keys, such as recover.epochs=8.""",
        options=SHARE_OPTIONS,
    )

    def check(self, config: PruneBlocksConfig) -> None:
        """Raise as `RemovalConfig.check_engine`."""
        config.check_engine()

    def list_tools(
        self, config: PruneBlocksConfig, parents: Mapping[str, Artefact]
    ) -> tuple[str, ...]:
        return (*self.info.tools, *config.list_timing_tools())

    def run(
        self, parents: Mapping[str, Artefact], config: PruneBlocksConfig, context: Context
    ) -> StageOutput:
        started = time.perf_counter()
        images, path = open_images(parents["images"]), parents["model"].file(MODEL_FILE)
        model, parent = load_model(path), parents["model"].read_facts(ModelFacts)
        budget = config.make_budget(path, model, images, context)
        blocks, rows = choose_removed(model, config, budget, images, context)
        removed = [block for block, row in zip(blocks, rows, strict=True) if row.removed]

        def build(_: int | None) -> Any:
            return remove_blocks(model, removed)

        before = score_model(build(None), images)
        shallow, state = train_model(
            build,
            images,
            config.recover,
            context.scratch,
            context.progress,
            soft_targets=read_soft_targets(parents, config.distill),
            keep_recalls=recalls_to_keep(parent, self.info.name),
        )
        write_table(context.directory / BLOCKS, BlockRow, rows)
        original, left = read_layers(model), read_layers(shallow)
        outcome = write_outcome(
            shallow,
            state,
            images,
            parents["images"],
            context,
            derive_model(
                parent,
                self.info.name,
                BlockPruning(
                    blocks=len(blocks),
                    removed=tuple(block.add for block in removed),
                    macs=(macs_of(original), macs_of(left)),
                    parameters=(parameters_of(original), parameters_of(left)),
                    validation_before=before,
                    validation_after=state.best_scores(before.n),
                    latency=budget.goal,
                ),
            ),
            started=started,
        )
        footprint = budget.measure(shallow)
        if footprint is None:
            return outcome
        return replace(outcome, measured={"footprint": footprint.to_document()})

    def describe(self, step: ModelStep) -> str:
        """Return the removed blocks and the remaining cost, as a sentence; of a latency budget also
        the goal."""
        pruned = step.read_change(BlockPruning)
        macs, parameters = (after / before for before, after in (pruned.macs, pruned.parameters))
        return (
            f"{len(pruned.removed)} of {count_things(pruned.blocks, 'residual block')} removed, "
            f"{format_percent(macs)} of the operations and {format_percent(parameters)} of the "
            f"parameters remain{describe_latency(pruned.latency, step.footprint)}"
        )


def choose_removed(
    model: Any,
    config: PruneBlocksConfig,
    budget: PruneBudget,
    images: ImageSet,
    context: Context,
) -> tuple[tuple[ResidualBlock, ...], list[BlockRow]]:
    """Return the blocks of the model, and the row of each.

    The choice is stored in the scratch folder, so that a resumed run builds the same model. Raises
    `DataError` for a network without residual blocks, or whose other layers exceed the budget.
    """
    layers = read_layers(model)
    blocks = find_blocks(layers)
    if not blocks:
        raise DataError(
            f"{model.name} has no residual block; expected a network with shortcuts, such as "
            "resnet152v2. prune removes channels of any network."
        )
    kept = context.scratch / "blocks.json"
    if kept.is_file():
        return blocks, [BlockRow.from_document(row) for row in json.loads(kept.read_text())]
    rows = images.draw_stratified("train", config.images, seed=config.recover.seed)
    importance = measure_importance(model, blocks, images.pixels[rows], context.progress)
    costs = share_costs(layers, blocks, budget, "parameters" if config.keep_parameters else "macs")

    def choose(counted: str, limit: float) -> frozenset[int]:
        """Return the blocks to remove; of a latency budget the limit is a share of it, too."""
        share = limit / COSTS[counted](layers)
        chosen = choose_blocks(importance, costs, 1 - share)
        if chosen is None:
            raise DataError(
                f"without all {len(blocks)} residual blocks {1 - sum(costs):.3f} of the cost is "
                f"left, for {share:.3f} that may stay; expected a higher share, or prune, which "
                "removes channels."
            )
        return chosen

    removed = budget.choose(
        config.share,
        choose,
        lambda chosen: remove_blocks(model, [blocks[number] for number in chosen]),
    )
    table = [
        BlockRow(
            block=block.add,
            layers=len(block.branch),
            importance=importance[number],
            cost=costs[number],
            removed=number in removed,
        )
        for number, block in enumerate(blocks)
    ]
    write_whole({kept: json.dumps([row.to_document() for row in table]).encode()})
    return blocks, table


def share_costs(
    layers: Sequence[Layer], blocks: Sequence[ResidualBlock], budget: PruneBudget, counted: str
) -> list[float]:
    """Return the share of each block in the cost that the budget counts, 0..1.

    A device measures no layers: there it is that of the operations, and what is left is measured.
    """
    costs: Mapping[str, float]
    if isinstance(budget, LatencyBudget) and not budget.goal.device:
        profile = measure_profile(budget.original, PROFILE_ROUNDS, threads=1)
        costs = {layer.layer: layer.median_ms for layer in profile.layers}
    else:
        costs = (count_macs if counted == "macs" else count_weights)(layers)
    whole = sum(costs.values())
    return [sum(costs.get(n, 0) for n in (*block.branch, block.add)) / whole for block in blocks]
