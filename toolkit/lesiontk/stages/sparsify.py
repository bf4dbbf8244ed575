"""Stage: magnitude pruning, zeros instead of the smallest weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from pydantic import Field, model_validator

from lesiontk.compress.kernel_constraint import KernelStructure
from lesiontk.compress.magnitude import (
    Pattern,
    choose_kept,
    fits_pattern,
    inputs_of,
    plan_sparsity,
)
from lesiontk.document import Record
from lesiontk.errors import DataError
from lesiontk.recipe import TrainSection
from lesiontk.records import Artefact, ModelStep
from lesiontk.report.formatting import format_percent
from lesiontk.stage import Context, StageConfig, StageOutput
from lesiontk.stages.constrained_training import (
    Arrays,
    ConstrainedTraining,
    check_recovery,
    keep_arrays,
)
from lesiontk.stages.parent_predictions import DistillRule
from lesiontk.technique import RECOVERY, ZEROS, Technique, TechniqueInfo


class SparsifyConfig(StageConfig):
    """The share and the pattern of zeros, and the fine-tuning."""

    sparsity: float = Field(0.75, gt=0, lt=1, description="share of zeros; 0.5 with 2:4")
    pattern: Pattern = Field("unstructured", description="unstructured, 2:4 or block")
    block: tuple[int, int] = Field((1, 4), description="inputs and outputs per block")
    rounds: int = Field(
        3, ge=1, description="rounds with increasing sparsity, by the cubic schedule"
    )
    ramp_epochs: int = Field(1, ge=1, description="epochs of each round except the last")
    distill: DistillRule | None = DistillRule()
    recover: TrainSection = TrainSection(epochs=4, learning_rate=5e-4, ema=0.99)

    @model_validator(mode="after")
    def _check(self) -> SparsifyConfig:
        check_recovery(self.recover)
        if self.pattern == "2:4" and self.sparsity != 0.5:
            if "sparsity" in self.model_fields_set:
                raise ValueError("with the pattern 2:4 sparsity is 0.5: two of four")
            object.__setattr__(self, "sparsity", 0.5)
        if self.pattern == "2:4":
            self.refuse_idle("rounds", "ramp_epochs", belongs_to="the other patterns")
        if self.pattern != "block":
            self.refuse_idle("block", belongs_to="the pattern block")
        if min(self.block) < 1:
            raise ValueError("block is two whole numbers of at least 1")
        return self


@dataclass(frozen=True, slots=True)
class Sparsity(Record):
    """The share of zeros in the compressed kernels, and the layers without the pattern."""

    pattern: Pattern
    sparsity: float
    dense: tuple[str, ...]


class SparsifyStage(Technique):
    """Produces ``model.keras`` with zeros in its kernels, and the footprint."""

    info: ClassVar[TechniqueInfo] = TechniqueInfo(
        name="sparsify",
        version=10,
        accepts={"model": "model", "images": "images", "soft_targets": "soft_targets"},
        config=SparsifyConfig,
        tools=("tensorflow", "tf_keras", "numpy"),
        leaves=frozenset({ZEROS}),
        why_last="zeros are chosen for the current kernels; other channels, or unconstrained "
        "training, would undo them",
        inherits=RECOVERY,
        help="""Set the smallest weights of MODEL to zero and fine-tune it.

        The network keeps its shape: its file compresses better, but dense kernels are not
        faster. `lesiontk prune` reduces operations. --set accepts the technique's keys, such
        as rounds=5.""",
        options={"sparsity": "Share of zeros; default 0.75.", "pattern": "The pattern of zeros."},
    )

    def run(
        self, parents: Mapping[str, Artefact], config: SparsifyConfig, context: Context
    ) -> StageOutput:
        held = ConstrainedTraining(self.info.name, parents, config.distill, context)
        dense = list_dense(held.kernels, config)
        # The pattern 2:4 has one sparsity only, so one round.
        rounds = 1 if config.pattern == "2:4" else config.rounds
        for number, sparsity in enumerate(plan_sparsity(config.sparsity, rounds), start=1):
            scratch = context.scratch if number == rounds else context.scratch / f"round-{number}"
            scratch.mkdir(exist_ok=True)
            choose = partial(choose_zeros, held.kernels, sparsity, config)
            kept = keep_arrays(scratch / "kept.npz", choose)
            section = config.recover
            if number < rounds:
                section = section.model_copy(update={"epochs": config.ramp_epochs})
            structures = {name: KernelStructure(kept=mask) for name, mask in kept.items()}
            held.train(structures, section, scratch)
        kernels = held.kernels.values()
        zeros = sum(int((kernel == 0).sum()) for kernel in kernels)
        sparsity = zeros / sum(kernel.size for kernel in kernels)
        return held.write(Sparsity(config.pattern, sparsity, tuple(dense)))

    def describe(self, step: ModelStep) -> str:
        """Return the share and the pattern of zeros, and the dense layers, as a sentence."""
        sparse = step.read_change(Sparsity)
        named = ", ".join(sparse.dense)
        left = (
            f"; dense, because their inputs are not a multiple of the pattern's: {named}"
            if named
            else ""
        )
        return (
            f"{format_percent(sparse.sparsity)} of the weights of the compressed kernels are "
            f"zero ({sparse.pattern}){left}"
        )


def list_dense(kernels: Arrays, config: SparsifyConfig) -> list[str]:
    """Return the layers that cannot have the pattern. Raises `DataError` if none can."""
    pattern, block = config.pattern, config.block
    dense = [name for name, kernel in kernels.items() if not fits_pattern(kernel, pattern, block)]
    if dense and len(dense) == len(kernels):
        raise DataError(
            f"no layer can have the pattern {pattern}: the inputs of {', '.join(dense)} are not a "
            f"multiple of {inputs_of(pattern, block)}; expected another pattern or block."
        )
    return dense


def choose_zeros(kernels: Arrays, sparsity: float, config: SparsifyConfig) -> Arrays:
    """Return layer -> the mask of kept weights, for layers that can have the pattern."""
    return {
        name: choose_kept(kernel, sparsity, config.pattern, config.block)
        for name, kernel in kernels.items()
        if fits_pattern(kernel, config.pattern, config.block)
    }
