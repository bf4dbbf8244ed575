"""What an engine's evaluation froze and found, as its file carries it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from lesiontk.errors import DataError, LesionTKError
from lesiontk.evaluate.bootstrap import Estimate
from lesiontk.evaluate.findings import describe_evaluation
from lesiontk.evaluate.operating_point import (
    GIVEN,
    OPERATING_METRICS,
    OperatingPoint,
    point_from_document,
)
from lesiontk.files.strict_json import parse_json
from lesiontk.records import EngineSpec

FORMAT = 1
KEPT = ("accuracy", "balanced_accuracy", "macro_auc", "macro_f1", "expected_calibration_error")
"""The metrics that a file carries, beside the recall of each class."""


@dataclass(frozen=True, slots=True)
class TestResult:
    """What an engine is worth on the `n` test images, of `lesions` lesions, of its own split.

    `metrics` are by arg-max. `at_threshold` has `OPERATING_METRICS` at the frozen threshold; it is
    empty where another threshold was given since. Intervals are at level `confidence`. `findings`
    are the sentences of `describe_evaluation`, such as that the engine was emulated. `images` are
    how many of the n show each label; empty where a file does not say.
    """

    __test__ = False  # pytest takes the name for a test's

    n: int
    lesions: int
    split_hash: str
    confidence: float
    metrics: Mapping[str, Estimate]
    at_threshold: Mapping[str, Estimate] = field(default_factory=dict)
    findings: tuple[str, ...] = ()
    images: Mapping[str, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the fields as plain Python values."""
        return {
            "n": self.n,
            "lesions": self.lesions,
            "split_hash": self.split_hash,
            "confidence": self.confidence,
            "metrics": {name: value.to_json() for name, value in self.metrics.items()},
            "at_threshold": {name: value.to_json() for name, value in self.at_threshold.items()},
            "findings": list(self.findings),
            "images": dict(self.images),
        }


@dataclass(frozen=True, slots=True)
class Assessment:
    """An engine's operating point and temperature, frozen on validation, and its test result.

    `content` is the SHA-256 of the engine file without this record: the figures are of that very
    file and of no other. It is empty until the record is written into a file.
    """

    operating_point: OperatingPoint | None = None
    temperature: float | None = None
    test: TestResult | None = None
    content: str = ""

    @classmethod
    def from_evaluation(
        cls, document: Mapping[str, Any], findings: Sequence[str] | None = None
    ) -> Assessment:
        """Return what the document of an evaluation on the test split says.

        The document is as `EvaluateStage` writes it; with `findings` it needs no confusion matrix.
        """
        point, metrics = document["operating_point"], document["metrics"]
        kept = [name for name in metrics if name in KEPT or name.startswith("recall[")]
        scaled = document["temperature"]
        return cls(
            point_from_document(point),
            None if scaled is None else float(scaled["temperature"]),
            TestResult(
                n=int(document["n"]),
                lesions=int(document["lesions"]),
                split_hash=str(document["split_hash"]),
                confidence=float(document["confidence"]),
                metrics={name: Estimate(**metrics[name]) for name in kept},
                at_threshold={name: Estimate(**point[name]) for name in OPERATING_METRICS},
                findings=tuple(describe_evaluation(document) if findings is None else findings),
                images={
                    label: sum(counts)
                    for label, counts in zip(
                        document.get("labels", ()), document.get("confusion", ()), strict=False
                    )
                },
            ),
        )

    def with_threshold(self, threshold: float, positive: tuple[str, ...]) -> Assessment:
        """Return the assessment that decides at a user's own threshold.

        What the frozen threshold gave on the test split is not what this one gives: it is left out.
        """
        test = None if self.test is None else replace(self.test, at_threshold={})
        return replace(self, operating_point=OperatingPoint(GIVEN, threshold, positive), test=test)

    def check_labels(self, spec: EngineSpec) -> None:
        """Raise `DataError` unless the positive labels are some, and not all, of the engine's."""
        positive = self.operating_point.positive if self.operating_point else spec.labels[:1]
        if not set(positive) < set(spec.labels):
            raise DataError(
                f"the threshold is of {', '.join(positive)}; expected some of the engine's labels "
                f"{', '.join(spec.labels)}."
            )

    def to_json(self) -> dict[str, Any]:
        """Return the fields as plain Python values."""
        return {
            "format": FORMAT,
            "content": self.content,
            "operating_point": self.operating_point and self.operating_point.to_json(),
            "temperature": self.temperature,
            "test": self.test and self.test.to_json(),
        }

    def dump(self) -> str:
        """Return the JSON text that engine files carry."""
        return json.dumps(self.to_json(), sort_keys=True, allow_nan=False)

    @classmethod
    def parse(cls, text: str) -> Assessment:
        """Return what a file carries; `DataError` for what `dump` does not write."""
        try:
            document = parse_json(text, "it")
            if document["format"] != FORMAT:
                raise DataError(
                    f"its threshold and figures have the format {document['format']!r}; this "
                    f"lesiontk reads {FORMAT}. Use a newer lesiontk."
                )
            point, test = document["operating_point"], document["test"]
            return cls(
                point and point_from_document(point),
                None if document["temperature"] is None else _temperature(document["temperature"]),
                test and _test_from_document(test),
                str(document["content"]),
            )
        except LesionTKError:
            raise
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise DataError(
                f"its threshold and figures cannot be read ({error!r}); evaluate the engine again."
            ) from error


def _temperature(value: object) -> float:
    if not isinstance(value, int | float) or not 0 < value < float("inf"):
        raise ValueError(f"the temperature is {value!r}")
    return float(value)


def _test_from_document(document: Mapping[str, Any]) -> TestResult:
    def read(estimates: Mapping[str, Mapping[str, float | None]]) -> dict[str, Estimate]:
        return {str(name): Estimate(**values) for name, values in estimates.items()}

    return TestResult(
        n=int(document["n"]),
        lesions=int(document["lesions"]),
        split_hash=str(document["split_hash"]),
        confidence=float(document["confidence"]),
        metrics=read(document["metrics"]),
        at_threshold=read(document["at_threshold"]),
        findings=tuple(str(finding) for finding in document.get("findings", ())),
        images={str(label): int(number) for label, number in document.get("images", {}).items()},
    )
