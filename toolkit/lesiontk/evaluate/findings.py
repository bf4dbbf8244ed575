"""Findings on an engine that come before any comparison with its parent.

Does it find what matters, and does it tell classes apart at all? An engine that loses nothing
against a useless parent passes every gate on losses. No threshold here is a clinical one: an
engine is compared with chance, with its own misses, and with what so many images can show.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from lesiontk.evaluate.bootstrap import Estimate
from lesiontk.evaluate.evaluation import EngineEvaluation

ONE_ANSWER = 0.99
"""An engine that gives one class to this share of the images is said to answer one class."""

CHANCE = 0.5
"""The AUC of answers that are independent of the picture."""


class Scores(Protocol):
    """An evaluation or a benchmark's row: metrics by arg-max, counts [C, C] with truth in rows."""

    @property
    def metrics(self) -> Mapping[str, Estimate]: ...
    @property
    def confusion(self) -> Sequence[Sequence[int]]: ...


@dataclass(frozen=True, slots=True)
class CriticalRecall:
    """How many of the `images` of the critical `label` are `found` by arg-max.

    `low` and `high` are the interval of the share at `confidence`, None where there is none.
    `elsewhere` is the share of the other images that get the label too, None without any.
    """

    label: str
    images: int
    found: int
    low: float | None
    high: float | None
    confidence: float
    elsewhere: float | None

    def list_cautions(self) -> tuple[str, ...]:
        """Return the reasons why the recall is no good news, as clauses; empty if there are none.

        They are: it misses more than it finds; the images are too few to exclude that; the label is
        not shown to be given more often to its own images than to others.
        """
        if not self.images:
            return ("no image shows it, so nothing is known of how many it finds",)
        cautions = []
        few = "1 image is" if self.images == 1 else f"{self.images} images are"
        if 2 * self.found < self.images:
            unsure = self.high is None or self.high > 0.5
            though = f", though {few} too few to show this" if unsure else ""
            cautions.append(f"it misses more than it finds{though}")
        elif self.low is None or self.low <= 0.5:
            cautions.append(f"{few} too few to show that it finds more than it misses")
        if not self.found and not self.elsewhere:
            cautions.append("it gives this answer to no image at all")
        elif self.elsewhere is not None and (self.low is None or self.low <= self.elsewhere):
            cautions.append(
                "this is not shown to be better than chance, because it gives the same answer to "
                f"{_percent(self.elsewhere)} of the other images"
            )
        return tuple(cautions)

    def describe(self, name: Callable[[str], str] = str) -> str:
        """Return ``finds 1 of 12 images of mel by the highest probability (8.3 %, …)``."""
        if not self.images:
            return f"was judged on no image of {name(self.label)}"
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
    answered = sum(row[index] for row in counts) - counts[index][index]
    recall = scores.metrics[f"recall[{critical}]"]
    return CriticalRecall(
        label=critical,
        images=images,
        found=counts[index][index],
        low=recall.low,
        high=recall.high,
        confidence=confidence,
        elsewhere=answered / others if others else None,
    )


def explain_uninformative(scores: Scores, labels: Sequence[str]) -> tuple[str, ...]:
    """Return, as clauses, how an engine fails to tell classes apart; empty for one that does.

    It gives one class to `ONE_ANSWER` of the images or more, though these show others; or the
    interval of its macro AUC contains `CHANCE`. `scores` is as for `read_critical_recall`.
    """
    counts = scores.confusion
    images = sum(map(sum, counts))
    answers = [sum(row[column] for row in counts) for column in range(len(labels))]
    most = max(range(len(labels)), key=answers.__getitem__)
    shown = sum(counts[most])
    found = []
    if images > 1 and answers[most] >= ONE_ANSWER * images > shown:
        found.append(
            f"answers {labels[most]} for {answers[most]} of {images} images, of which {shown} "
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
    """Return which classes no image shows, and what the means leave out; empty if none is absent.

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
    """Return what must be said of the scores of an engine, as sentences without their full stop."""
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
