"""The stage chooses its threshold on validation, and test only suffers it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from lesiontk.backends.execution import Execution
from lesiontk.data.image_table import SplitImage
from lesiontk.data.tasks import load_task
from lesiontk.document import write_table
from lesiontk.errors import DataError
from lesiontk.evaluate.assessment import Assessment
from lesiontk.evaluate.evaluation import EngineEvaluation
from lesiontk.evaluate.temperature import fit_temperature
from lesiontk.recipe import EvaluateRule
from lesiontk.records import Artefact, EngineSpec, Preprocessing
from lesiontk.stage import Context
from lesiontk.stages import evaluate as evaluate_stage
from lesiontk.stages.evaluate import (
    METRICS,
    PREDICTIONS,
    VALIDATION_PREDICTIONS,
    EvaluateStage,
    read_assessment,
    read_evaluation,
    read_operating_point,
    read_predictions,
)
from tests.artefacts import change_manifest, make_artefact, make_engine_facts
from tests.image_sets import make_prepared

SEVEN = load_task("seven_class")
SUBSETS = ("validation", "test")
IMAGES = 112
RULE = EvaluateRule(resamples=100)


def name_lesion(number: int) -> str:
    """Two images a lesion, both on its side of the split."""
    return f"{SUBSETS[number % 2]}-{number // 4}"


class PixelEngine:
    """Answers from the first pixel, the image's number: the same image, the same answer."""

    def __init__(self, split_hash: str, definition: dict[str, Any] | None) -> None:
        extra = {} if definition is None else {"task_definition": definition}
        self.spec = EngineSpec(
            labels=SEVEN.labels,
            preprocessing=Preprocessing(8),
            task=SEVEN.name,
            backend="tflite",
            precision="int8",
            recipe="probe",
            split_hash=split_hash,
            extra=extra,
        )

    def describe_execution(self) -> tuple[Execution, ...]:
        return ()

    def predict(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        rows = []
        for number in images[:, 0, 0, 0]:
            logits = np.random.default_rng(int(number)).normal(size=7)
            logits[number // 2 % 7] += 1.5
            rows.append(np.exp(logits) / np.exp(logits).sum())
        return np.array(rows, dtype=np.float32)


class Run:
    """An images artefact that can be changed, and the stage run on it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.runs = 0
        self.labels = [SEVEN.labels[n // 2 % 7] for n in range(IMAGES)]
        self.split_hash = "5" * 64

    def evaluate(self, rule: EvaluateRule = RULE, parent: Artefact | None = None) -> Artefact:
        self.runs += 1
        images = self._write_images(self.folder / f"images-{self.runs}")
        directory = self.folder / f"evaluation-{self.runs}"
        directory.mkdir()
        facts = make_engine_facts(file="e.tflite")
        engine = make_artefact(self.folder, "engine", facts, ["e.tflite"], key="e")
        parents = {"engine": engine, "images": images}
        if parent is not None:
            parents["parent"] = parent
        output = EvaluateStage().run(parents, rule, Context(directory, directory))
        return make_artefact(
            directory,
            "evaluation",
            output.facts,
            [path.name for path in directory.iterdir()],
            key="f",
            schema_version=EngineEvaluation.SCHEMA,
        )

    def _write_images(self, folder: Path) -> Artefact:
        folder.mkdir()
        pixels = np.zeros((IMAGES, 8, 8, 3), np.uint8)
        pixels[:] = np.arange(IMAGES)[:, None, None, None]
        np.save(folder / "images.npy", pixels)
        rows = [
            SplitImage(
                image_id=f"IMG_{n:03d}",
                lesion_id=None,
                group=name_lesion(n),
                diagnosis=label,
                label=label,
                subset=SUBSETS[n % 2],
                location=f"{n}.jpg",
                pixel_sha256=str(n),
            )
            for n, label in enumerate(self.labels)
        ]
        write_table(folder / "images.csv", SplitImage, rows)
        prepared = make_prepared(images=IMAGES, preprocessing=Preprocessing(8), task=SEVEN)
        return make_artefact(folder, "images", prepared, ["images.npy", "images.csv"], key="a")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    run = Run(tmp_path)

    @contextmanager
    def open_engine(path: Path, *, threads: int) -> Iterator[PixelEngine]:
        yield PixelEngine(run.split_hash, asdict(SEVEN))

    monkeypatch.setattr(evaluate_stage, "open_engine", open_engine)
    return run


def test_the_document_says_what_was_frozen_where_and_what_test_gave(run: Run) -> None:
    evaluation = run.evaluate()
    document = read_evaluation(evaluation)
    point = document.operating_point
    assert (document.subset, document.n, document.critical) == ("test", IMAGES // 2, "mel")
    assert point.rule == "youden"
    assert point.positive == ("akiec", "bcc", "mel")
    assert point.validation is not None
    assert point.validation.n == IMAGES // 2
    assert point.validation.positives == point.positives == 24
    for name in ("sensitivity", "specificity", "auc"):
        estimate = getattr(point, name)
        assert estimate.low <= estimate.value <= estimate.high
    assert next(n for n in document.metrics if n.startswith("recall")) == "recall[mel]"
    assert json.loads(evaluation.file(METRICS).read_text()) == document.to_document()
    assert read_operating_point(evaluation).threshold == point.threshold


def test_the_labels_of_test_do_not_move_the_threshold(run: Run) -> None:
    before = read_evaluation(run.evaluate()).operating_point
    run.labels[1::2] = [run.labels[1::2][(i + 5) % 56] for i in range(56)]
    after = read_evaluation(run.evaluate()).operating_point
    assert before.threshold == after.threshold
    assert before.validation == after.validation
    assert before.sensitivity != after.sensitivity
    assert before.auc.value > after.auc.value + 0.1


def test_the_labels_of_validation_do(run: Run) -> None:
    before = read_evaluation(run.evaluate()).operating_point
    run.labels[0::2] = ["mel" if label == "nv" else label for label in run.labels[0::2]]
    after = read_evaluation(run.evaluate()).operating_point
    assert before.threshold != after.threshold
    assert before.auc == after.auc


def test_the_rule_is_that_of_the_recipe(run: Run) -> None:
    rule = RULE.model_copy(update={"threshold": "sensitivity:1"})
    point = read_evaluation(run.evaluate(rule)).operating_point
    assert point.rule == "sensitivity:1"
    assert point.validation is not None
    assert point.validation.sensitivity == 1.0
    assert point.threshold < read_evaluation(run.evaluate()).operating_point.threshold


def test_predictions_of_both_sides_are_kept_to_the_last_bit(run: Run) -> None:
    evaluation = run.evaluate()
    for file, first in ((VALIDATION_PREDICTIONS, 0), (PREDICTIONS, 1)):
        truth, probabilities, groups, ids, labels = read_predictions(evaluation, file)
        numbers = np.arange(first, IMAGES, 2, dtype=np.uint8)
        assert ids == [f"IMG_{n:03d}" for n in numbers]
        assert groups == [name_lesion(int(n)) for n in numbers]
        assert labels == list(SEVEN.labels)
        assert [labels[t] for t in truth] == [run.labels[n] for n in numbers]
        expected = PixelEngine("", None).predict(
            np.broadcast_to(numbers[:, None, None, None], (len(numbers), 8, 8, 3))
        )
        np.testing.assert_array_equal(probabilities, expected)


def test_validation_of_one_class_is_refused(run: Run) -> None:
    run.labels[0::2] = ["nv"] * 56
    with pytest.raises(DataError, match="0 positive and 56 negative validation images"):
        run.evaluate()


def test_another_split_is_refused(run: Run) -> None:
    run.split_hash = "6" * 64
    with pytest.raises(DataError, match="some of which may be its training images"):
        run.evaluate()


def test_an_evaluation_from_before_has_no_threshold(run: Run) -> None:
    evaluation = run.evaluate()
    facts = {k: v for k, v in evaluation.facts.items() if k != "operating_point"}
    old = change_manifest(evaluation, facts=facts)
    with pytest.raises(DataError, match="has no frozen threshold"):
        read_operating_point(old)


def test_an_engine_keeps_the_sensitivity_that_its_parent_froze(run: Run) -> None:
    parent = run.evaluate(RULE.model_copy(update={"threshold": "sensitivity:0.95"}))
    alone, child = run.evaluate(), run.evaluate(parent=parent)
    theirs, mine = (read_evaluation(a).operating_point for a in (parent, child))
    assert mine.rule == "parent_sensitivity"
    assert mine.validation == theirs.validation
    assert read_evaluation(alone).operating_point.validation != theirs.validation


def test_the_temperature_is_fitted_on_validation_and_judged_on_test(run: Run) -> None:
    evaluation = run.evaluate()
    scaled = read_evaluation(evaluation).temperature
    assert scaled is not None
    assert scaled.temperature == evaluation.facts["temperature"]
    truth, probabilities, *_ = read_predictions(evaluation, VALIDATION_PREDICTIONS)
    assert scaled.temperature == pytest.approx(fit_temperature(truth, probabilities))
    error = scaled.expected_calibration_error
    assert error.low <= error.value <= error.high


def test_an_emulated_engine_is_told_in_its_evaluation_and_in_what_its_file_carries(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    emulated = (Execution("runtime", "TensorRT", "ONNX Runtime on the CPU"),)
    told = "tflite:int8 was emulated by ONNX Runtime on the CPU"
    real = run.evaluate()
    assert read_evaluation(real).emulated_by is None
    assert not any(told in finding for finding in findings_of(real))
    monkeypatch.setattr(PixelEngine, "describe_execution", lambda self: emulated)
    stood_in = run.evaluate()
    assert read_evaluation(stood_in).emulated_by == "ONNX Runtime on the CPU"
    assert any(finding.startswith(told) for finding in findings_of(stood_in))


def findings_of(evaluation: Artefact) -> tuple[str, ...]:
    """What a file that was stamped with an evaluation tells of it, after a round trip."""
    assessment = Assessment.parse(read_assessment(evaluation).dump())
    assert assessment.test is not None
    return assessment.test.findings
