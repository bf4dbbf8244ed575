"""Stage: the same network for smaller images; the cost falls with their square."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import Field, model_validator

from lesiontk.backends.keras.backend import load_model
from lesiontk.compress.channel_budget import macs_of
from lesiontk.compress.keras_layers import read_layers, require_input_size, with_input_size
from lesiontk.compress.model_history import derive_model, recalls_to_keep
from lesiontk.data.images import open_images
from lesiontk.document import Record
from lesiontk.recipe import TrainSection
from lesiontk.records import MODEL_FILE, Artefact, ModelFacts, ModelStep
from lesiontk.report.formatting import format_percent
from lesiontk.stage import Context, StageConfig, StageOutput
from lesiontk.stages.constrained_training import check_recovery
from lesiontk.stages.model_artefact import write_outcome, write_untrained
from lesiontk.stages.parent_predictions import DistillRule, read_soft_targets
from lesiontk.technique import RECOVERY, Technique, TechniqueInfo
from lesiontk.train.loop import train_model


class ResizeConfig(StageConfig):
    """The new size of the images, and the fine-tuning, if any."""

    image_size: int = Field(
        ge=16, le=1024, description="side in pixels, smaller than the current one"
    )
    distill: DistillRule | None = DistillRule()
    recover: TrainSection | None = Field(
        TrainSection(epochs=4, learning_rate=5e-4, ema=0.99),
        description="null leaves fine-tuning to the next technique, such as prune",
    )

    @model_validator(mode="before")
    @classmethod
    def _check_distill(cls, values: Any) -> Any:
        if isinstance(values, Mapping) and values.get("recover", True) is None:
            return {"distill": None, **values}
        return values

    @model_validator(mode="after")
    def _check(self) -> ResizeConfig:
        if self.recover is not None:
            check_recovery(self.recover)
        elif self.distill is not None:
            raise ValueError("distill requires recover, which is null: remove it")
        return self


@dataclass(frozen=True, slots=True)
class Resizing(Record):
    """The side of the images in pixels, and the network's MACs, before and after."""

    image_size: tuple[int, int]
    macs: tuple[int, int]


class ResizeStage(Technique):
    """Produces ``model.keras`` with its parent's layers and widths, for smaller images.

    `images` are those of the new size; the soft targets are the parent's predictions at its own
    size.
    """

    info: ClassVar[TechniqueInfo] = TechniqueInfo(
        name="resize",
        version=3,
        accepts={"model": "model", "images": "images", "soft_targets": "soft_targets"},
        config=ResizeConfig,
        tools=("tensorflow", "tf_keras", "numpy"),
        inherits=RECOVERY,
        help="""Retrain MODEL for smaller images.

        They are read again from the folder of the training, or from --data. The number of
        operations falls with the square of the size; the file size does not: `lesiontk prune`
        may follow. --set accepts the technique's keys, such as recover.epochs=5;
        recover=null leaves fine-tuning to the next technique.""",
        options={"image_size": "Side in pixels."},
        reads_images=True,
    )

    def check_model(self, model: Artefact, config: ResizeConfig) -> None:
        """Raise `UsageError` for a model that does not accept images of that size."""
        make_smaller(load_model(model.file(MODEL_FILE)), config)

    def image_size(self, config: ResizeConfig) -> int:
        """Return the new size."""
        return config.image_size

    def can_teach(self, config: ResizeConfig) -> bool:
        """Return whether it was fine-tuned."""
        return config.recover is not None

    def describe(self, step: ModelStep) -> str:
        """Return the sizes and the remaining operations, as a sentence."""
        resizing = step.read_change(Resizing)
        (size, smaller), (before, after) = resizing.image_size, resizing.macs
        left = format_percent(after / before)
        return f"{smaller} px instead of {size}: {left} of the operations remain"

    def run(
        self, parents: Mapping[str, Artefact], config: ResizeConfig, context: Context
    ) -> StageOutput:
        started = time.perf_counter()
        parent, source = parents["model"], parents["images"]
        images = open_images(source)
        model = load_model(parent.file(MODEL_FILE))
        smaller = make_smaller(model, config)
        facts = parent.read_facts(ModelFacts)
        change = Resizing(
            image_size=(model.input_shape[1], smaller.input_shape[1]),
            macs=(macs_of(read_layers(model)), macs_of(read_layers(smaller))),
        )
        origin = derive_model(facts, self.info.name, change)
        if config.recover is None:
            return write_untrained(smaller, images, source, context, origin)
        trained, state = train_model(
            lambda size: with_input_size(model, size),
            images,
            config.recover,
            context.scratch,
            context.progress,
            soft_targets=read_soft_targets(parents, config.distill),
            keep_recalls=recalls_to_keep(facts, self.info.name),
        )
        return write_outcome(trained, state, images, source, context, origin, started=started)


def make_smaller(model: Any, config: ResizeConfig) -> Any:
    """Return the model for images of the new size. Raises `UsageError` if it does not accept
    them."""
    expected = f"resize.image_size is {config.image_size}; expected {model.input_shape[1]}"
    return require_input_size(model, config.image_size, expected)
