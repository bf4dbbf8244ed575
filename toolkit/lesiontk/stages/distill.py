"""Stage: knowledge distillation, fine-tuning on a teacher's soft targets."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field, field_validator

from lesiontk.backends.backend import Engine
from lesiontk.backends.keras.backend import load_model
from lesiontk.compress.keras_layers import require_input_size, with_input_size
from lesiontk.compress.model_history import derive_model, recalls_to_keep
from lesiontk.data.images import ImageSet, PreparedImages, open_images
from lesiontk.data.tasks import sum_labels
from lesiontk.document import Record
from lesiontk.errors import UsageError
from lesiontk.recipe import TrainSection
from lesiontk.records import MODEL_FILE, Artefact, ModelFacts, ModelStep
from lesiontk.stage import ADDED_LATER, Context, StageConfig, StageOutput
from lesiontk.stages.model_artefact import write_outcome
from lesiontk.stages.parent_predictions import SOFT_TARGETS
from lesiontk.stages.teacher_predictions import (
    FEATURES,
    TeacherPredictions,
    expose_features,
    make_teach,
    open_teachers,
)
from lesiontk.technique import AS_TRAINED, Teacher, Technique, TechniqueInfo
from lesiontk.train.distillation import SoftTargets, soften
from lesiontk.train.feature_losses import TeacherFeatures, read_weights
from lesiontk.train.loop import train_model

logger = logging.getLogger(__name__)


class DistillConfig(StageConfig):
    """The teacher, the weight of its soft targets, and the training."""

    teacher: tuple[str, ...] = Field(
        exclude=True,  # a stage of its own has the files' content in its key
        min_length=1,
        description="engines of the student's split, with its labels or finer ones, whose mean "
        "prediction is the target: files, or models or engines of the workspace, such as "
        "latest:vgg16_7class",
    )
    views: Literal["plain", "augmented"] = Field(
        "plain",
        json_schema_extra=ADDED_LATER,
        description="plain: the teacher predicts each training image once; augmented: it "
        "predicts each augmented image, which costs its inference in every step",
    )
    teacher_views: Literal[1, 4, 8] | None = Field(
        None,
        json_schema_extra=ADDED_LATER,
        description="views of an image whose mean the teacher predicts: itself, the 4 mirrored or "
        "all 8 mirrored and rotated ones; null is 4 for plain images, which it predicts once, and "
        "1 for augmented ones",
    )
    losses: tuple[str, ...] = Field(
        (),
        json_schema_extra=ADDED_LATER,
        description="registered losses between the pooled features of student and teacher, beside "
        "that of the soft targets, as name or name:weight; of several teachers the first one that "
        "exposes features is compared",
    )
    temperature: float = Field(2.0, gt=0, description="temperature of the softmax")
    weight: float = Field(
        0.7, gt=0, le=1, description="weight of the soft targets against the true labels"
    )
    train: TrainSection = TrainSection()

    @field_validator("teacher", "losses", mode="before")
    @classmethod
    def _accept_one(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @field_validator("losses")
    @classmethod
    def _know_losses(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        try:
            read_weights(value)
        except UsageError as error:
            raise ValueError(str(error)) from error
        return value

    @property
    def views_a_prediction(self) -> int:
        """The number of views that a prediction is the mean of."""
        return self.teacher_views or (4 if self.views == "plain" else 1)


@dataclass(frozen=True, slots=True)
class Distillation(Record):
    """The teacher's file, its accuracy on the training images, and what it was pretrained on."""

    teacher: str
    accuracy_on_training: float
    pretraining: str = ""


class DistillStage(Technique):
    """Produces ``model.keras``, as training does.

    If the teacher may have seen the test images, the student is marked as well: it is trained only
    on the teacher's probabilities for training images, but these may leak information on other
    images.
    """

    info: ClassVar[TechniqueInfo] = TechniqueInfo(
        name="distill",
        version=8,
        accepts={"model": "model", "images": "images", "soft_targets": "soft_targets"},
        config=DistillConfig,
        tools=("tensorflow", "tf_keras", "numpy"),
        trains=True,
        inherits={"train": AS_TRAINED},
        help="""Train MODEL on the soft targets of a teacher.

        --set accepts the technique's keys, such as train.epochs=8.""",
        options={
            "teacher": "An engine file, or a model or engine of the workspace, such as "
            "latest:vgg16_7class; of the same split, of any architecture and size.",
            "temperature": "Temperature of the softmax; default 2.",
            "weight": "Weight of the soft targets against the true labels; default 0.7.",
            "views": "The images that the teacher predicts, plain or augmented; default plain.",
            "teacher_views": "Mirrored and rotated views of an image whose mean it predicts; "
            "default 4 for plain and 1 for augmented images.",
            "losses": "A loss between pooled features, such as feature:0.5 or relational.",
        },
        networks=("teacher",),
    )

    def check_model(self, model: Artefact, config: DistillConfig) -> None:
        """Raise `UsageError` for a student that does not accept the image sizes of
        ``train.grow``."""
        if config.train.grow:
            check_growth(load_model(model.file(MODEL_FILE)), config.train, model.name)

    def teacher(self, config: DistillConfig) -> Teacher:
        """Return the files of the teachers."""
        if config.views == "plain":
            return Teacher(config.teacher, config.views_a_prediction, bool(config.losses))
        return Teacher(config.teacher)

    def describe(self, step: ModelStep) -> str:
        """Return the teacher, as a sentence."""
        taught = step.read_change(Distillation)
        known = f" (pretrained on: {taught.pretraining})" if taught.pretraining else ""
        return f"distilled from {taught.teacher}{known}"

    def run(
        self, parents: Mapping[str, Artefact], config: DistillConfig, context: Context
    ) -> StageOutput:
        started = time.perf_counter()
        images = open_images(parents["images"])
        self.check_model(parents["model"], config)
        untaught = load_model(parents["model"].file(MODEL_FILE))
        facts = parents["model"].read_facts(ModelFacts)
        teacher = parents["soft_targets"].read_facts(TeacherPredictions)
        task = parents["images"].read_facts(PreparedImages).task
        predicted = np.load(parents["soft_targets"].file(SOFT_TARGETS)) @ sum_labels(
            teacher.labels, task
        )
        if teacher.may_have_seen_test:
            logger.warning(
                "the teacher was trained elsewhere; it may have seen the student's test images, "
                "which the student's facts record"
            )
        soft_targets = SoftTargets(
            soften(predicted, config.temperature), config.temperature, config.weight
        )
        weights = read_weights(config.losses)
        with ExitStack() as stack:
            if config.views == "plain" and weights:
                values = np.load(parents["soft_targets"].file(FEATURES))
                features = TeacherFeatures(values.shape[1], weights, values)
                soft_targets = replace(soft_targets, features=features)
            elif config.views == "augmented":
                teachers = stack.enter_context(
                    open_teachers(config.teacher, images.split_hash, context.threads)
                )
                warn_of_enlarging(teachers, images)
                exposing, width = expose_features(teachers) if weights else (None, 0)
                soft_targets = replace(
                    soft_targets,
                    teach=make_teach(
                        teachers, task, config.temperature, config.views_a_prediction, exposing
                    ),
                    features=TeacherFeatures(width, weights) if weights else None,
                )
            model, state = train_model(
                lambda size: with_input_size(untaught, size),
                images,
                config.train,
                context.scratch,
                context.progress,
                soft_targets=soft_targets,
                keep_recalls=recalls_to_keep(facts, self.info.name),
            )
        rows = images.indices("train")
        correct = float((predicted[rows].argmax(axis=1) == images.targets[rows]).mean())
        return write_outcome(
            model,
            state,
            images,
            parents["images"],
            context,
            derive_model(
                facts,
                self.info.name,
                Distillation(
                    " + ".join(Path(file).name for file in config.teacher),
                    correct,
                    teacher.pretraining,
                ),
                may_have_seen_test=teacher.may_have_seen_test,
            ),
            started=started,
        )


def warn_of_enlarging(teachers: Sequence[Engine], images: ImageSet) -> None:
    """Log a warning if the training pictures are smaller than a teacher's input."""
    seen = images.training_source()[0].shape[1]
    size = max(teacher.spec.preprocessing.image_size for teacher in teachers)
    if seen < size:
        logger.warning(
            "the teacher sees pictures of %d pixels enlarged to %d; expected data.training_size: "
            "%d, with which they are as sharp as those that it was trained on",
            seen, size, size,
        )  # fmt: skip


def check_growth(model: Any, train: TrainSection, name: str) -> None:
    """Raise `UsageError` unless a model accepts the image sizes of its training."""
    size = int(model.input_shape[1])
    for smaller in train.grow:
        otherwise = f"distill.train.grow is {list(train.grow)}; expected none for {name}"
        require_input_size(model, smaller, otherwise)
    if not train.grows_to(size):
        raise UsageError(
            f"distill.train.grow is {list(train.grow)}; expected increasing sizes below {size}, "
            "and an epoch for each."
        )
