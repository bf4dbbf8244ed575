"""Stage: weight clustering, few distinct values in each kernel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from pydantic import Field, model_validator

from lesiontk.compress.kernel_constraint import KernelStructure
from lesiontk.compress.weight_clusters import cluster_weights
from lesiontk.document import Record
from lesiontk.recipe import TrainSection
from lesiontk.records import Artefact, ModelStep
from lesiontk.stage import Context, StageConfig, StageOutput
from lesiontk.stages.constrained_training import ConstrainedTraining, check_recovery, keep_arrays
from lesiontk.stages.parent_predictions import DistillRule
from lesiontk.technique import RECOVERY, SHARED_VALUES, ZEROS, Technique, TechniqueInfo


class ClusterConfig(StageConfig):
    """The number of values of each kernel, and the fine-tuning."""

    clusters: int = Field(32, ge=2, le=256, description="distinct values of a kernel")
    distill: DistillRule | None = DistillRule()
    recover: TrainSection = TrainSection(epochs=3, learning_rate=2e-4, ema=0.99)

    @model_validator(mode="after")
    def _check(self) -> ClusterConfig:
        check_recovery(self.recover)
        return self


@dataclass(frozen=True, slots=True)
class Clustering(Record):
    """How many values each kernel has."""

    clusters: int


class ClusterStage(Technique):
    """Produces ``model.keras`` with clustered kernels, and their footprint.

    Zeros of a sparse kernel stay, and are one of its values.
    """

    info: ClassVar[TechniqueInfo] = TechniqueInfo(
        name="cluster",
        version=8,
        accepts={"model": "model", "images": "images", "soft_targets": "soft_targets"},
        config=ClusterConfig,
        tools=("tensorflow", "tf_keras", "scikit-learn", "numpy"),
        holds=frozenset({ZEROS}),
        leaves=frozenset({SHARED_VALUES}),
        why_last="clusters are computed for the current kernels; other zeros, channels or scales, "
        "or unconstrained training, would separate equal weights",
        inherits=RECOVERY,
        help="""Cluster the weights of each kernel of MODEL and fine-tune it.

        Its file compresses better; its speed is unchanged. Zeros of a sparse model stay.
        --set accepts the technique's keys, such as recover.epochs=5.""",
        options={"clusters": "Distinct values of each kernel; default 32."},
    )

    def run(
        self, parents: Mapping[str, Artefact], config: ClusterConfig, context: Context
    ) -> StageOutput:
        held = ConstrainedTraining(self.info.name, parents, config.distill, context)
        kernels = held.kernels
        ties = keep_arrays(
            context.scratch / "ties.npz",
            lambda: {n: cluster_weights(kernel, config.clusters) for n, kernel in kernels.items()},
        )
        structures = {
            name: KernelStructure(kept=kernel != 0, ties=ties[name])
            for name, kernel in kernels.items()
        }
        held.train(structures, config.recover, context.scratch)
        return held.write(Clustering(config.clusters))

    def describe(self, step: ModelStep) -> str:
        """How many values a kernel has."""
        return f"{step.read_change(Clustering).clusters} distinct weights per kernel"
