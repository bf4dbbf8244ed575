"""Stage: train a model further, or anew, with what a stronger one says of its training images."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from lesiontk.backends import is_engine_file, open_engine
from lesiontk.backends.backend import Engine
from lesiontk.backends.keras_backend import MODEL_FILE, load_model
from lesiontk.compress.held_training import hold_kernels
from lesiontk.compress.history import inherit_facts
from lesiontk.data.decode import ImageError
from lesiontk.data.images import ImageSet, open_images
from lesiontk.data.inspect_stage import data_root
from lesiontk.data.preprocess import preprocess_image
from lesiontk.data.reader import ImageReader, decode_many
from lesiontk.data.split_stage import list_records, read_split
from lesiontk.data.tasks import Task, definition_of, task_from_definition
from lesiontk.errors import DataError, UsageError
from lesiontk.hashing import hash_file
from lesiontk.models import ARCHITECTURES
from lesiontk.models.architecture import build_model
from lesiontk.recipe import ModelSection, TrainSection
from lesiontk.records import Artefact, ImageRecord
from lesiontk.stage import Context, Stage, StageConfig, StageInfo, StageOutput
from lesiontk.train.lessons import Lessons, soften
from lesiontk.train.loop import train_model
from lesiontk.train.outcome import write_outcome

LESSONS = "lessons.npy"


class DistilConfig(StageConfig):
    """Who teaches, how much the student listens, and how it is trained meanwhile."""

    teacher: str = Field(
        description="an engine file of the student's own split, of its labels or finer ones"
    )
    temperature: float = Field(2.0, gt=0)
    weight: float = Field(0.7, gt=0, le=1, description="of the lessons beside the truth")
    train: TrainSection = TrainSection()
    path: str | None = Field(None, exclude=True)


class DistilStage(Stage):
    """Produces ``model.keras``, as training does; keeps what the teacher said beside it.

    The teacher sees the pictures at its own input size, whatever the student's.
    """

    info: ClassVar[StageInfo] = StageInfo(
        name="distil",
        version=3,
        accepts={"model": "model", "images": "images", "split": "split", "dataset": "dataset"},
        produces="model",
        config=DistilConfig,
        may_follow=("train", "import", "distil", "prune"),
        tools=("tensorflow", "tf_keras", "numpy"),
    )

    def check(self, config: DistilConfig) -> None:
        """The teacher's file must be there."""
        if not is_engine_file(config.teacher) or not Path(config.teacher).is_file():
            raise DataError(
                f"the teacher {config.teacher} is no engine file; expected the path of one, such "
                "as keras_float32.keras in benchmarks/engines/RECIPE."
            )

    def external_inputs(self, config: DistilConfig) -> dict[str, str]:
        """The hash of the teacher's file."""
        path = Path(config.teacher)
        return {"teacher": hash_file(path)} if path.is_file() else {}

    def run(
        self, parents: Mapping[str, Artefact], config: DistilConfig, context: Context
    ) -> StageOutput:
        started = time.perf_counter()
        images = open_images(parents["images"])
        build = make_builder(parents["model"], len(images.labels), config.train)
        said = self._ask(parents, images, config, context)
        model, state = train_model(
            build,
            images,
            config.train,
            context.scratch,
            context.progress,
            lessons=Lessons(soften(said, config.temperature), config.temperature, config.weight),
        )
        rows = images.indices("train")
        right = float((said[rows].argmax(axis=1) == images.targets[rows]).mean())
        np.save(context.directory / LESSONS, said)
        return write_outcome(
            model,
            state,
            images,
            parents["images"],
            context,
            started=started,
            facts={
                **inherit_facts(parents["model"]),
                "teacher": {"file": Path(config.teacher).name, "accuracy_on_training": right},
            },
        )

    def _ask(
        self,
        parents: Mapping[str, Artefact],
        images: ImageSet,
        config: DistilConfig,
        context: Context,
    ) -> NDArray[np.float32]:
        """Return the teacher's probabilities, [N, C]; zero for images outside of training."""
        kept = context.scratch / LESSONS
        if kept.is_file():
            return np.asarray(np.load(kept), np.float32)
        records = list_records(read_split(parents["split"]))
        with open_engine(config.teacher, threads=context.threads) as teacher:
            task = task_from_definition(definition_of(parents["images"].facts))
            sums = check_teacher(teacher, images, task)
            said = np.zeros((len(images.targets), len(images.labels)), np.float32)
            rows = images.indices("train")
            with (
                ImageReader(data_root(config.path, parents)) as reader,
                context.progress.task("asking the teacher", len(rows)) as advance,
            ):
                for first in range(0, len(rows), 256):
                    part = rows[first : first + 256]
                    pictures = _read(reader, [records[row] for row in part], teacher, context)
                    said[part] = ask_teacher(teacher, pictures) @ sums
                    advance(len(part))
        np.save(context.scratch / "next.npy", said)
        (context.scratch / "next.npy").replace(kept)
        return said


def make_builder(student: Artefact, classes: int, train: TrainSection) -> Callable[[Any], Any]:
    """Return the function that gives the student, for images of a size or of any.

    Raises `UsageError` if it is to grow and is of one size: what is no longer as its architecture
    has it, cannot be built for another.
    """
    path = student.file(MODEL_FILE)
    if student.manifest["stage"]["name"] != "train":
        if train.grow:
            raise UsageError(
                f"distil.train.grow is {list(train.grow)}; expected none, for {student.name} was "
                f"made by {student.manifest['stage']['name']} and has one size."
            )
        return lambda size: hold_kernels(load_model(path), {})
    section = ModelSection(**student.manifest["config"]["model"])
    start = load_model(path).get_weights()

    def build(size: int | None) -> Any:
        model = build_model(
            ARCHITECTURES.get(section.architecture),
            image_size=size,
            classes=classes,
            dropout=section.dropout,
        )
        model.set_weights(start)
        return model

    return build


def check_teacher(teacher: Engine, images: ImageSet, task: Task) -> NDArray[np.float32]:
    """Return how the teacher's labels add up to the student's, float32 [teacher's, student's].

    A teacher of single diagnoses can teach a student who puts several into one label. Raises
    `DataError` for labels that the student's task does not know, and for a teacher of another
    split, who may have learned the student's test images.
    """
    spec = teacher.spec
    if spec.split_hash != images.split_hash:
        raise DataError(
            f"the teacher was trained on the split {spec.split_hash[:12]}; expected the student's, "
            f"{images.split_hash[:12]}: it may have learned the student's test images."
        )
    sums = np.zeros((len(spec.labels), len(images.labels)), np.float32)
    for row, label in enumerate(spec.labels):
        try:
            sums[row, task.label_index(label)] = 1
        except DataError as error:
            raise DataError(
                f"the teacher's labels are {', '.join(spec.labels)}, and {label!r} is none of "
                f"{', '.join(images.labels)}; expected the student's, or diagnoses of its task "
                f"{task.name}."
            ) from error
    if not sums.any(axis=0).all():
        raise DataError(
            f"the teacher's labels are {', '.join(spec.labels)}; expected one at least for each of "
            f"the student's, {', '.join(images.labels)}."
        )
    return sums


def ask_teacher(teacher: Engine, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the teacher's mean probabilities over the four mirror images, float32 [N, C]."""
    views = [pictures[:, ::down, ::right] for down in (1, -1) for right in (1, -1)]
    said = [teacher.predict(np.ascontiguousarray(view)) for view in views]
    return np.asarray(np.mean(said, axis=0), np.float32)


def _read(
    reader: ImageReader, records: list[ImageRecord], teacher: Engine, context: Context
) -> NDArray[np.uint8]:
    size = teacher.spec.preprocessing.image_size
    pictures = np.empty((len(records), size, size, 3), np.uint8)
    for index, picture in decode_many(
        reader,
        records,
        workers=context.threads,
        transform=lambda image: preprocess_image(image, teacher.spec.preprocessing),
        advance=lambda *_: None,
        max_failures=0,
    ):
        if isinstance(picture, ImageError):
            raise DataError(
                f"{records[index].image_id} cannot be read for the teacher ({picture.reason}); "
                "expected the images that the split was made of."
            )
        pictures[index] = picture
    return pictures
