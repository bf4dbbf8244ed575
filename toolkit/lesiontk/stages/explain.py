"""Stage: Grad-CAM heatmaps of the worst errors on the test images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from lesiontk.backends import open_engine
from lesiontk.backends.keras.backend import load_model
from lesiontk.backends.reference_outputs import engine_file
from lesiontk.data.images import ImageSet, open_images
from lesiontk.document import write_record
from lesiontk.errors import DataError
from lesiontk.explain.choice import ChosenImage, choose_images
from lesiontk.explain.explanation import (
    DOCUMENT,
    ExplainedImage,
    Explanation,
    Heatmap,
)
from lesiontk.explain.keras_grad_cam import GradCAM
from lesiontk.explain.overlay import draw_overlay, encode_picture
from lesiontk.records import Artefact
from lesiontk.stage import Context, Stage, StageConfig, StageInfo, StageOutput
from lesiontk.stages.evaluate import predict_rows, read_predictions
from lesiontk.stages.known_splits import check_own_split

SUBSET = "test"

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float32]


class ExplainConfig(StageConfig):
    """The maximum number of images."""

    images: int = Field(ge=1)


class ExplainStage(Stage):
    """Produces ``explanation.json`` and, for each image, the image itself and two heatmaps.

    The model is the converted one. Its predictions are those of the evaluation of its engine
    ``keras:float32``; without that parent they are computed.
    """

    info: ClassVar[StageInfo] = StageInfo(
        name="explain",
        version=1,
        accepts={"model": "model", "images": "images", "evaluation": "evaluation"},
        produces="explanation",
        schema_version=Explanation.SCHEMA,
        config=ExplainConfig,
        tools=("tensorflow", "tf_keras", "numpy", "matplotlib", "Pillow"),
    )

    def run(
        self, parents: Mapping[str, Artefact], config: ExplainConfig, context: Context
    ) -> StageOutput:
        images, model = open_images(parents["images"]), parents["model"]
        check_own_split(model.name, model.facts["split_hash"], images.split_hash)
        rows = images.indices(SUBSET)
        truth, critical = images.targets[rows], images.labels.index(images.critical)
        if "evaluation" in parents:
            probabilities = _read_probabilities(parents["evaluation"], images, rows)
        else:
            with open_engine(engine_file(model), threads=context.threads) as engine:
                what = "predicting the images to explain"
                probabilities = predict_rows(engine, images, rows, what, context)
        chosen = choose_images(truth, probabilities, critical, config.images)

        network = GradCAM(load_model(engine_file(model)))
        pixels = images.pixels[rows[[choice.row for choice in chosen]]]
        predicted, rivals = (
            network.explain(pixels, np.array(classes))
            for classes in ([c.predicted for c in chosen], [c.rival for c in chosen])
        )
        explained = []
        for number, choice in enumerate(chosen):
            pictures = {
                "original": pixels[number],
                "predicted": draw_overlay(pixels[number], predicted[number]),
                "rival": draw_overlay(pixels[number], rivals[number]),
            }
            files = {role: f"{number + 1:02d}_{role}.jpg" for role in pictures}
            for role, picture in pictures.items():
                (context.directory / files[role]).write_bytes(encode_picture(picture))
            explained.append(
                _describe(
                    choice, images, rows, probabilities, files,
                    empty=(not predicted[number].any(), not rivals[number].any()),
                )
            )  # fmt: skip

        wrong = probabilities.argmax(axis=1) != truth
        explanation = Explanation(
            layer=network.layer,
            grid=network.grid,
            critical=images.critical,
            judged=len(rows),
            wrong=int(wrong.sum()),
            critical_judged=int((truth == critical).sum()),
            critical_missed=int(wrong[truth == critical].sum()),
            images=tuple(explained),
        )
        write_record(context.directory / DOCUMENT, explanation)
        return StageOutput(
            {
                "images": len(explained),
                "layer": explanation.layer,
                "grid": list(explanation.grid),
                "split_hash": images.split_hash,
                "judged": explanation.judged,
                "wrong": explanation.wrong,
                "critical_missed": explanation.critical_missed,
            }
        )


def _read_probabilities(evaluation: Artefact, images: ImageSet, rows: IntArray) -> FloatArray:
    """Return [N, C] of these rows of the images."""
    _, probabilities, _, image_ids, labels = read_predictions(evaluation)
    expected = [images.image_ids[row] for row in rows]
    if image_ids != expected or tuple(labels) != images.labels:
        raise DataError(
            f"{evaluation.name} has other images or labels than the {SUBSET} subset of the images; "
            "expected the evaluation of keras:float32 on it."
        )
    return probabilities


def _describe(
    choice: ChosenImage,
    images: ImageSet,
    rows: IntArray,
    probabilities: FloatArray,
    files: Mapping[str, str],
    *,
    empty: tuple[bool, bool],
) -> ExplainedImage:
    row, labels = rows[choice.row], images.labels
    return ExplainedImage(
        image_id=images.image_ids[row],
        group=images.groups[row],
        reason=choice.reason,
        true_label=labels[images.targets[row]],
        probabilities={
            label: float(f"{p:.7g}")
            for label, p in zip(labels, probabilities[choice.row], strict=True)
        },
        original=files["original"],
        predicted=Heatmap(labels[choice.predicted], files["predicted"], empty[0]),
        rival=Heatmap(labels[choice.rival], files["rival"], empty[1]),
    )
