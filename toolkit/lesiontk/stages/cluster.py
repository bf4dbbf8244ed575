"""Stage: the weights of each kernel take a few values (weight clustering)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field, model_validator

from lesiontk.compress.kernel_constraint import KernelStructure
from lesiontk.compress.weight_clusters import cluster_weights
from lesiontk.recipe import TrainSection
from lesiontk.records import Artefact
from lesiontk.stage import Context, Stage, StageConfig, StageInfo, StageOutput
from lesiontk.stages.constrained_training import HeldTraining, check_recovery, keep_arrays
from lesiontk.stages.parent_predictions import DistillRule


class ClusterConfig(StageConfig):
    """How many values each kernel has, and how the network recovers."""

    clusters: int = Field(32, ge=2, le=256, description="different values of a kernel")
    distill: DistillRule | None = DistillRule()
    recover: TrainSection = TrainSection(epochs=3, learning_rate=2e-4, ema=0.99)

    @model_validator(mode="after")
    def _check(self) -> ClusterConfig:
        check_recovery(self.recover)
        return self


class ClusterStage(Stage):
    """Produces ``model.keras`` with clustered kernels, and what that changes on a device.

    Zeros of a kernel that was made sparse stay, and are one of its values.
    """

    info: ClassVar[StageInfo] = StageInfo(
        name="cluster",
        version=7,
        accepts={"model": "model", "images": "images", "soft_targets": "soft_targets"},
        produces="model",
        config=ClusterConfig,
        may_follow=("train", "import", "distill", "load_weights", "resize", "prune", "sparsify"),
        tools=("tensorflow", "tf_keras", "tensorflow-model-optimization", "scikit-learn", "numpy"),
    )

    def run(
        self, parents: Mapping[str, Artefact], config: ClusterConfig, context: Context
    ) -> StageOutput:
        held = HeldTraining(self.info.name, parents, config.distill, context)
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
        return held.write({"clustered": {"clusters": config.clusters}})
