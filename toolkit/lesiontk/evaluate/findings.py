"""Findings on an engine that do not depend on its parent.

An engine that loses nothing against a useless parent passes every gate on losses; these findings
show low sensitivity and outputs that do not separate the classes. The thresholds are not clinical:
an engine is compared with chance, with its own misses, and with the resolution of the sample.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from lesiontk.evaluate.bootstrap import Estimate
from lesiontk.evaluate.evaluation import EngineEvaluation

CONSTANT_SHARE = 0.99
"""The share of images with one predicted class from which the prediction counts as constant."""

CHANCE = 0.5
"""The AUC of predictions that are independent of the image."""


class Scores(Protocol):
    """An evaluation or a benchmark's row: metrics by arg-max, counts [C, C] with true labels in
    rows."""

    @property
    def metrics(self) -> Mapping[str, Estimate]: ...
    @property
    def confusion(self) -> Sequence[Sequence[int]]: ...


@dataclass(frozen=True, slots=True)
class CriticalRecall:
    """The recall of the critical `label`: `found` of its `images` by arg-max.

    `low` and `high` are the interval at `confidence`, or None. `elsewhere` is the share of the
    other images with this prediction, None without other images.
    """

    label: str
    images: int
    found: int
    low: float | None
    high: float | None
    confidence: float
    elsewhere: float | None

    def list_cautions(self) -> tuple[str, ...]:
        """Return the problems of the recall as clauses; empty if there are none.

        They are: it misses more than it finds; the images are too few to exclude that; the label is
        not shown to be predicted more often for its own images than for others.
        """
        if not self.images:
            return ("no image shows it, so its recall is unknown",)
        cautions = []
        too_few = "1 image is" if self.images == 1 else f"{self.images} images are"
        if 2 * self.found < self.images:
            unsure = self.high is None or self.high > 0.5
            though = f", though {too_few} too few to show this" if unsure else ""
            cautions.append(f"it misses more than it finds{though}")
        elif self.low is None or self.low <= 0.5:
            cautions.append(f"{too_few} too few to show that it finds more than it misses")
        if not self.found and not self.elsewhere:
            cautions.append("it predicts this class for no image")
        elif self.elsewhere is not None and (self.low is None or self.low <= self.elsewhere):
            cautions.append(
                "this is not shown to be better than chance, because it predicts the same class "
                f"for {_percent(self.elsewhere)} of the other images"
            )
        return tuple(cautions)

    def describe(self, name: Callable[[str], str] = str) -> str:
        """Return ``finds 1 of 12 images of mel by the highest probability (8.3 %, …)``."""
        if not self.images:
            return f"was tested on no image of {name(self.label)}"
        images = "image" if self.images == 1 else "images"
        text = (
            f"finds {self.found} of {self.images} {images} of {name(self.label)} by the highest "
            "probability"
        )
        share = _percent(self.found / self.images)
        if self.low is None or self.high is None:
            return f"{text} ({share})"
        interval = f"{100 * self.low:.1f}–{_percent(self.high)}"
        return f"{text} ({share}, {_level(self.confidence)} interval {interval})"


def read_critical_recall(
    scores: Scores, labels: Sequence[str], critical: str, confidence: float
) -> CriticalRecall:
    """Return the recall of the class `critical` of an evaluation or of a benchmark's row.

    `labels` are those of the rows of the confusion matrix.
    """
    index, counts = list(labels).index(critical), scores.confusion
    images = sum(counts[index])
    others = sum(map(sum, counts)) - images
    predicted = sum(row[index] for row in counts) - counts[index][index]
    recall = scores.metrics[f"recall[{critical}]"]
    return CriticalRecall(
        label=critical,
        images=images,
        found=counts[index][index],
        low=recall.low,
        high=recall.high,
        confidence=confidence,
        elsewhere=predicted / others if others else None,
    )


def explain_uninformative(scores: Scores, labels: Sequence[str]) -> tuple[str, ...]:
    """Return, as clauses, how an engine fails to separate the classes; empty if it does not fail.

    It predicts one class for `CONSTANT_SHARE` of the images or more, although they show others; or
    the interval of its macro AUC contains `CHANCE`. `scores` is as for `read_critical_recall`.
    """
    counts = scores.confusion
    images = sum(map(sum, counts))
    predictions = [sum(row[column] for row in counts) for column in range(len(labels))]
    most = max(range(len(labels)), key=predictions.__getitem__)
    shown = sum(counts[most])
    found = []
    if images > 1 and predictions[most] >= CONSTANT_SHARE * images > shown:
        found.append(
            f"predicts {labels[most]} for {predictions[most]} of {images} images, of which {shown} "
            f"{'shows' if shown == 1 else 'show'} it"
        )
    auc = scores.metrics["macro_auc"]
    lowest = auc.value if auc.low is None else auc.low
    if lowest is not None and lowest <= CHANCE:
        interval = "" if auc.low is None else f" ({auc.low:.3f}–{auc.high:.3f})"
        ranks = "is not shown to rank classes better"
        if auc.high is not None and auc.high < CHANCE:
            ranks = "ranks classes worse"
        found.append(f"{ranks} than chance: macro AUC {auc.value:.3f}{interval}")
    return tuple(found)


def describe_absent(scores: Scores, labels: Sequence[str]) -> str:
    """Return which classes no image shows and the means therefore exclude; empty if none is absent.

    `scores` is as for `read_critical_recall`.
    """
    pairs = zip(labels, scores.confusion, strict=True)
    absent = [label for label, counts in pairs if not sum(counts)]
    if not absent:
        return ""
    return (
        f"no image shows {', '.join(absent)}: balanced accuracy and the other means over classes "
        f"are of {len(labels) - len(absent)} of {len(labels)} classes"
    )


def describe_emulation(target: str, emulator: str) -> str:
    """Return what the scores of an emulated engine are, as a sentence without its full stop."""
    return f"{target} was emulated by {emulator}: its scores are those of the graph"


def describe_scores(
    scores: Scores,
    target: str,
    labels: Sequence[str],
    critical: str,
    confidence: float,
    emulated_by: str | None,
) -> list[str]:
    """Return the findings on an engine's scores, as sentences without their full stop."""
    recall = read_critical_recall(scores, labels, critical, confidence)
    absent = describe_absent(scores, labels)
    sentences = [absent] if absent else []
    if emulated_by:
        sentences.append(describe_emulation(target, emulated_by))
    sentences += [f"{target} {clause}" for clause in explain_uninformative(scores, labels)]
    if cautions := recall.list_cautions():
        sentences.append(f"{target} {recall.describe()}: {'; '.join(cautions)}")
    return sentences


def describe_evaluation(evaluation: EngineEvaluation) -> list[str]:
    """Return `describe_scores` of an evaluation."""
    return describe_scores(
        evaluation,
        evaluation.target,
        evaluation.labels,
        evaluation.critical,
        evaluation.confidence,
        evaluation.emulated_by,
    )


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _level(confidence: float) -> str:
    return f"{100 * confidence:g} %"
