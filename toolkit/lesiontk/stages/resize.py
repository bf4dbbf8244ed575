"""Stage: the same network on smaller images, which cost it less with their square."""

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
    """The new size of the images, and how the network recovers, if it does at once."""

    image_size: int = Field(ge=16, le=1024, description="pixels a side, fewer than now")
    distill: DistillRule | None = DistillRule()
    recover: TrainSection | None = Field(
        TrainSection(epochs=4, learning_rate=5e-4, ema=0.99),
        description="null leaves it to what follows, such as prune",
    )

    @model_validator(mode="before")
    @classmethod
    def _ask_nobody_without_training(cls, values: Any) -> Any:
        if isinstance(values, Mapping) and values.get("recover", True) is None:
            return {"distill": None, **values}
        return values

    @model_validator(mode="after")
    def _check(self) -> ResizeConfig:
        if self.recover is not None:
            check_recovery(self.recover)
        elif self.distill is not None:
            raise ValueError("distill belongs to recover, which is null: drop it")
        return self


@dataclass(frozen=True, slots=True)
class Resizing(Record):
    """The side of the images in pixels, and the network's MACs, before and after."""

    image_size: tuple[int, int]
    macs: tuple[int, int]


class ResizeStage(Technique):
    """Produces ``model.keras`` with its parent's layers and widths, for smaller images.

    `images` are those of the new size; lessons are what the parent says of its own.
    """

    info: ClassVar[TechniqueInfo] = TechniqueInfo(
        name="resize",
        version=3,
        accepts={"model": "model", "images": "images", "soft_targets": "soft_targets"},
        config=ResizeConfig,
        tools=("tensorflow", "tf_keras", "numpy"),
        inherits=RECOVERY,
        help="""Retrain MODEL for smaller images.

        They are read anew from the folder that the model was trained on, or from --data. Its
        operations shrink with their square, its file does not: `lesiontk prune` may follow. --set
        takes the technique's own keys, as recover.epochs=5; recover=null leaves recovering to what
        follows.""",
        options={"image_size": "Pixels of each side."},
        reads_images=True,
    )

    def check_model(self, model: Artefact, config: ResizeConfig) -> None:
        """Raise `UsageError` for a model that does not take images of that size."""
        make_smaller(load_model(model.file(MODEL_FILE)), config)

    def image_size(self, config: ResizeConfig) -> int:
        """The smaller one."""
        return config.image_size

    def can_teach(self, config: ResizeConfig) -> bool:
        """Return whether it recovers at once."""
        return config.recover is not None

    def describe(self, step: ModelStep) -> str:
        """The sizes, and the operations that are left."""
        resizing = step.read_change(Resizing)
        (size, smaller), (before, after) = resizing.image_size, resizing.macs
        left = format_percent(after / before)
        return f"{smaller} px instead of {size}: {left} of the operations are left"

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
    """Return the model for images of the new size; `UsageError` if it does not take them."""
    asked = f"resize.image_size is {config.image_size}; expected {model.input_shape[1]}"
    return require_input_size(model, config.image_size, asked)
