"""Predictions of an engine on images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from lesiontk.backends import open_engine
from lesiontk.backends.execution import name_emulator
from lesiontk.data.pictures import read_picture
from lesiontk.data.preprocess import preprocess_image
from lesiontk.data.tasks import task_of_engine
from lesiontk.deploy.runner.decision import decide
from lesiontk.document import Record
from lesiontk.errors import DataError
from lesiontk.evaluate.assessment import Assessment
from lesiontk.evaluate.input_checks import check_input, load_checks
from lesiontk.evaluate.operating_point import OperatingPoint
from lesiontk.records import Artefact
from lesiontk.stages.input_checks import read_input_checks
from lesiontk.store import Store
from lesiontk.workflow.input_checks import find_input_checks
from lesiontk.workflow.lineage import find_assessment, locate_engine

Picture = Path | NDArray[np.uint8]
"""A file, or a decoded image: uint8 [H, W, 3] RGB of any size."""


@dataclass(frozen=True, slots=True)
class CheckedInput(Record):
    """The verdict of `check_input` on a picture."""

    status: str
    reasons: tuple[str, ...]
    measures: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction(Record):
    """The class and the probabilities of an image, and the decision as on the device.

    `confidence` is None without a temperature, `score` and `positive` without an operating point,
    `input` without input checks.
    """

    SPARSE: ClassVar[bool] = True

    image: str
    label: str
    probabilities: Mapping[str, float]
    confidence: float | None = None
    score: float | None = None
    positive: bool | None = None
    input: CheckedInput | None = None


@dataclass(frozen=True, slots=True)
class UnreadPicture(Record):
    """An image that could not be read, and the reason."""

    image: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Predictions(Record):
    """The predictions of an engine, of each image that could be read.

    `emulated_by` is None unless another program emulates the engine's runtime.
    """

    engine: str
    emulated_by: str | None
    recipe: str
    task: str
    labels: tuple[str, ...]
    operating_point: OperatingPoint | None
    temperature: float | None
    predictions: tuple[Prediction, ...]
    failures: tuple[UnreadPicture, ...]
    notice: str


def predict_reference(
    store: Store, reference: str, pictures: Sequence[Picture], threshold: float | None = None
) -> Predictions:
    """Predict with an engine file, or with an engine of the workspace at its frozen threshold."""
    path = locate_engine(store, reference)
    assessment = find_assessment(store, reference)
    checks = find_input_checks(store, reference)
    return predict_pictures(
        path, pictures, assessment=assessment, threshold=threshold, checks=checks
    )


def predict_pictures(
    engine_path: Path,
    pictures: Sequence[Picture],
    *,
    assessment: Assessment | None = None,
    threshold: float | None = None,
    checks: Artefact | None = None,
) -> Predictions:
    """Return one prediction for each readable image, and the failures.

    The decision is that of a bundle on the device: at `threshold`, at that of the `assessment`, or
    at that of the engine's file. An array is named by its index.
    """
    predictions, failures = [], []
    used = checks.file(read_input_checks(checks).file) if checks else engine_path
    fitted = load_checks(checks.path) if checks else None
    with open_engine(used) as engine:
        spec = engine.spec
        known = assessment or engine.assessment or Assessment()
        if threshold is not None:
            known = known.with_threshold(threshold, task_of_engine(spec).positive)
        emulated = name_emulator(engine.describe_execution())
        for number, picture in enumerate(pictures):
            name = str(number) if isinstance(picture, np.ndarray) else str(picture)
            try:
                original = _read(picture)
            except DataError as error:
                failures.append(UnreadPicture(name, str(error)))
                continue
            image = preprocess_image(original, spec.preprocessing)
            if fitted is None:
                verdict = None
                values = engine.predict(image[np.newaxis])[0]
            else:
                found = engine.predict_signals(image[np.newaxis])
                values = found.probabilities[0]
                outputs = values, found.features[0], found.logits[0]
                shorter = min(original.shape[:2])
                verdict = check_input(fitted, image, shorter, *outputs)
            prediction = decide(values, spec.labels, known.operating_point, known.temperature)
            if verdict is not None:
                prediction["input"] = verdict
            predictions.append(Prediction.from_document({"image": name, **prediction}))
    return Predictions(
        engine=engine_path.name,
        emulated_by=emulated,
        recipe=spec.recipe,
        task=spec.task,
        labels=spec.labels,
        operating_point=known.operating_point,
        temperature=known.temperature,
        predictions=tuple(predictions),
        failures=tuple(failures),
        notice=spec.notice,
    )


def _read(picture: Picture) -> NDArray[np.uint8]:
    """Return the decoded image, uint8 [H, W, 3]."""
    if not isinstance(picture, np.ndarray):
        return read_picture(picture)
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
        raise DataError(
            f"the image is {picture.dtype} {list(picture.shape)}; expected uint8 [H, W, 3] RGB."
        )
    return picture
