"""Stage: training of a float model on prepared images."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, ClassVar

from lesiontk.compress.model_history import ModelOrigin
from lesiontk.data.images import open_images
from lesiontk.models import ARCHITECTURES
from lesiontk.models.architecture import InitialWeights, build_model
from lesiontk.recipe import ModelSection, TrainSection
from lesiontk.records import Artefact, ModelFacts
from lesiontk.stage import TRAINING, Context, Stage, StageConfig, StageInfo, StageOutput
from lesiontk.stages.model_artefact import write_outcome
from lesiontk.train.checkpoints import read_state
from lesiontk.train.loop import train_model


class TrainConfig(StageConfig):
    """The network and its training."""

    model: ModelSection
    train: TrainSection


class TrainStage(Stage):
    """Produces ``model.keras`` (pixels 0..255 to probabilities), curves and a TensorBoard log."""

    info: ClassVar[StageInfo] = StageInfo(
        name="train",
        version=4,
        accepts={"images": "images"},
        produces="model",
        config=TrainConfig,
        schema_version=ModelFacts.SCHEMA,
        tools=("tensorflow", "tf_keras", "numpy"),
        needs=TRAINING,
    )

    def external_inputs(self, config: TrainConfig) -> dict[str, str]:
        """The hash of a weights file: the content of a path or package may change."""
        weights = find_weights(config)
        return {"weights": weights.sha256} if weights else {}

    def run(
        self, parents: Mapping[str, Artefact], config: TrainConfig, context: Context
    ) -> StageOutput:
        images = open_images(parents["images"])
        architecture = ARCHITECTURES.get(config.model.architecture)
        start = time.perf_counter()

        def build(size: int | None) -> Any:
            resumed = bool(read_state(context.scratch).epoch)
            weights = "none" if resumed else config.model.weights
            model = build_model(
                architecture,
                image_size=size,
                classes=len(images.labels),
                weights=weights,
                dropout=config.model.dropout,
            )
            if weights == "none" and architecture.initialize is not None and not resumed:
                architecture.initialize(model)
            return model

        model, state = train_model(
            build,
            images,
            config.train,
            context.scratch,
            context.progress,
            on_epoch=context.on_epoch,
        )
        return write_outcome(
            model,
            state,
            images,
            parents["images"],
            context,
            ModelOrigin(
                stage=self.info.name, architecture=architecture.name, change=find_weights(config)
            ),
            started=start,
        )


def find_weights(config: TrainConfig) -> InitialWeights | None:
    """Return the file of initial weights, if any."""
    source = ARCHITECTURES.get(config.model.architecture).find_weights(config.model.weights)
    return source.describe() if source else None
