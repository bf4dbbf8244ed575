"""A network with random weights, and evaluations that a test has made up, as artefacts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from lesiontk.backends.keras.backend import save_model
from lesiontk.data.images import ImageSet, open_images, write_rows
from lesiontk.models import ARCHITECTURES
from lesiontk.models.architecture import build_model
from lesiontk.records import Artefact, EngineSpec
from lesiontk.stage import Context, Stage, StageConfig, StageInfo, StageOutput
from lesiontk.store import Store
from lesiontk.system.frameworks import import_keras


class ModelConfig(StageConfig):
    split_hash: str


class UntrainedModel(Stage):
    """A network with random weights in the place of a trained one."""

    info: ClassVar[StageInfo] = StageInfo(
        name="untrained", version=1, accepts={"images": "images"}, produces="model",
        config=ModelConfig,
    )  # fmt: skip

    def run(
        self, parents: Mapping[str, Artefact], config: ModelConfig, context: Context
    ) -> StageOutput:
        images = open_images(parents["images"])
        import_keras().utils.set_random_seed(1)
        model = build_model(ARCHITECTURES.get("cnn"), image_size=32, classes=len(images.labels))
        spec = EngineSpec(
            images.labels, images.preprocessing, images.task, "keras", "float32", "probe",
            config.split_hash,
        )  # fmt: skip
        save_model(model, spec, context.directory / "model.keras")
        return StageOutput({"split_hash": config.split_hash})


class EvaluationConfig(StageConfig):
    probabilities: tuple[tuple[float, ...], ...]
    subset: str = "test"


class MadeUpEvaluation(Stage):
    """Predictions that a test has chosen."""

    info: ClassVar[StageInfo] = StageInfo(
        name="make_up", version=1, accepts={"images": "images"}, produces="evaluation",
        config=EvaluationConfig,
    )  # fmt: skip

    def run(
        self, parents: Mapping[str, Artefact], config: EvaluationConfig, context: Context
    ) -> StageOutput:
        images = open_images(parents["images"])
        names = [f"p_{label}" for label in images.labels]
        write_rows(
            context.directory / "predictions.csv",
            [
                {
                    "image_id": images.image_ids[row],
                    "group": images.groups[row],
                    "label": images.labels[images.targets[row]],
                    **dict(zip(names, values, strict=True)),
                }
                for row, values in zip(
                    images.indices(config.subset), config.probabilities, strict=True
                )
            ],
            ("image_id", "group", "label", *names),
        )
        return StageOutput({})


def make_up(
    store: Store, prepared: Artefact, images: ImageSet, doubts: Mapping[int, tuple[str, float]]
) -> Artefact:
    """Return an evaluation in which every image is surely right.

    `doubts` maps rows of the test subset to another class and what that gets; the truth gets 0.4.
    """
    rows = images.indices("test")
    table = np.eye(len(images.labels))[images.targets[rows]]
    for row, (label, probability) in doubts.items():
        table[row] *= 0.4
        table[row, images.labels.index(label)] = probability
    config = EvaluationConfig(probabilities=tuple(map(tuple, table.tolist())))
    return store.build(MadeUpEvaluation(), config, {"images": prepared})
