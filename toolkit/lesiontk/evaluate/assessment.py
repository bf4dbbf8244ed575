"""The record of an engine's evaluation in its file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Protocol

from lesiontk.document import Record
from lesiontk.errors import DataError, show_value
from lesiontk.evaluate.bootstrap import Estimate
from lesiontk.evaluate.evaluation import EngineEvaluation
from lesiontk.evaluate.findings import Scores, describe_evaluation
from lesiontk.evaluate.operating_point import (
    GIVEN,
    OPERATING_METRICS,
    OperatingEvaluation,
    OperatingPoint,
)
from lesiontk.evaluate.subgroups import SubgroupResult
from lesiontk.evaluate.temperature import TemperatureEvaluation
from lesiontk.files.strict_json import parse_json
from lesiontk.records import EngineSpec

FORMAT = 1
STORED_METRICS = (
    "accuracy",
    "balanced_accuracy",
    "macro_auc",
    "macro_f1",
    "expected_calibration_error",
)
"""The metrics in an engine's file, besides the recall of each class."""


class JudgedScores(Scores, Protocol):
    """An evaluation, or a row of a benchmark, which may have no labels."""

    @property
    def n(self) -> int | None: ...
    @property
    def lesions(self) -> int | None: ...
    @property
    def operating_point(self) -> OperatingEvaluation | None: ...
    @property
    def temperature(self) -> TemperatureEvaluation | None: ...


@dataclass(frozen=True, slots=True)
class TestResult(Record):
    """An engine's results on the `n` test images, of `lesions` lesions, of its own split.

    `metrics` are by arg-max. `at_threshold` has `OPERATING_METRICS` at the frozen threshold; it is
    empty if the threshold was replaced. Intervals are at level `confidence`. `findings` are the
    sentences of `describe_evaluation`, for example on emulation. `images` are the counts by label
    and `subgroups` the results by age, sex and site; empty if the file has none.
    """

    __test__ = False  # the name is not that of a test for pytest

    n: int
    lesions: int
    split_hash: str
    confidence: float
    metrics: Mapping[str, Estimate]
    at_threshold: Mapping[str, Estimate] = field(default_factory=dict)
    findings: tuple[str, ...] = ()
    images: Mapping[str, int] = field(default_factory=dict)
    subgroups: tuple[SubgroupResult, ...] = ()


@dataclass(frozen=True, slots=True)
class Assessment(Record):
    """An engine's operating point and temperature, frozen on validation, and its test result.

    `content` is the SHA-256 of the engine file without this record, to which the results belong. It
    is empty until the record is written into a file.
    """

    DERIVED: ClassVar[tuple[str, ...]] = ("format",)

    operating_point: OperatingPoint | None = None
    temperature: float | None = None
    test: TestResult | None = None
    content: str = ""

    def __post_init__(self) -> None:
        if self.temperature is not None and not 0 < self.temperature < float("inf"):
            raise ValueError(f"the temperature is {self.temperature}; expected a positive number")

    @property
    def format(self) -> int:
        """The format version of the text in files."""
        return FORMAT

    @classmethod
    def from_evaluation(cls, evaluation: EngineEvaluation) -> Assessment:
        """Return the assessment of an evaluation on the test split."""
        return cls.from_scores(
            evaluation,
            evaluation.labels,
            split_hash=evaluation.split_hash,
            confidence=evaluation.confidence,
            findings=describe_evaluation(evaluation),
            subgroups=evaluation.subgroups,
        )

    @classmethod
    def from_scores(
        cls,
        scores: JudgedScores,
        labels: Sequence[str],
        *,
        split_hash: str,
        confidence: float,
        findings: Sequence[str],
        subgroups: tuple[SubgroupResult, ...] = (),
    ) -> Assessment:
        """Return the assessment of an engine's scores. Raises `ValueError` without scores."""
        point, scaled, metrics = scores.operating_point, scores.temperature, scores.metrics
        if point is None or scores.n is None or scores.lesions is None:
            raise ValueError("the engine was not evaluated on labelled images")
        kept = [name for name in metrics if name in STORED_METRICS or name.startswith("recall[")]
        return cls(
            point.point,
            None if scaled is None else scaled.temperature,
            TestResult(
                n=scores.n,
                lesions=scores.lesions,
                split_hash=split_hash,
                confidence=confidence,
                metrics={name: metrics[name] for name in kept},
                at_threshold={name: getattr(point, name) for name in OPERATING_METRICS},
                findings=tuple(findings),
                images=dict(zip(labels, map(sum, scores.confusion), strict=False)),
                subgroups=subgroups,
            ),
        )

    def with_threshold(self, threshold: float, positive: tuple[str, ...]) -> Assessment:
        """Return the assessment with the user's threshold.

        The results at the frozen threshold do not apply to it and are left out.
        """
        test = None if self.test is None else replace(self.test, at_threshold={}, subgroups=())
        return replace(self, operating_point=OperatingPoint(GIVEN, threshold, positive), test=test)

    def check_labels(self, spec: EngineSpec) -> None:
        """Raise `DataError` unless the positive labels are some, and not all, of the engine's."""
        positive = self.operating_point.positive if self.operating_point else spec.labels[:1]
        if not set(positive) < set(spec.labels):
            raise DataError(
                f"the threshold's labels are {', '.join(positive)}; expected some, not all, of the "
                f"engine's {', '.join(spec.labels)}."
            )

    def dump(self) -> str:
        """Return the JSON text for engine files."""
        return json.dumps(self.to_document(), sort_keys=True, allow_nan=False)

    @classmethod
    def parse(cls, text: str) -> Assessment:
        """Return the assessment of a file's text. Raises `DataError` for other text than that of
        `dump`."""
        document = parse_json(text, "it")
        written = document.get("format") if isinstance(document, dict) else None
        if written != FORMAT:
            raise DataError(
                f"its threshold and figures have the format {show_value(written)}; this lesiontk "
                f"reads {FORMAT}. Use a newer lesiontk."
            )
        return cls.from_document(document)
