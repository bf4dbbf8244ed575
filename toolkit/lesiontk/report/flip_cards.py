"""The cards of images whose class an engine changes."""

from __future__ import annotations

from dataclasses import dataclass

from lesiontk.explain.flips import Direction, Flip

WORDS = {
    Direction.LOST: "malignant → benign",
    Direction.RAISED: "benign → malignant",
    Direction.WITHIN: "",
}


@dataclass(frozen=True, slots=True)
class ProbabilityRow:
    """The probability of one label by parent and engine, and how the label is marked."""

    label: str
    parent: float
    engine: float
    is_from: bool
    is_to: bool
    is_true: bool


def describe_direction(flip: Flip) -> str:
    """Return ``malignant → benign``, or an empty text between labels of a kind."""
    return WORDS[flip.direction]


def list_probabilities(flip: Flip) -> list[ProbabilityRow]:
    """Return both probability vectors, the labels of the parent's most probable first."""
    labels = sorted(flip.parent, key=lambda label: -flip.parent[label])
    return [
        ProbabilityRow(
            label,
            flip.parent[label],
            flip.engine[label],
            label == flip.from_label,
            label == flip.to_label,
            label == flip.true_label,
        )
        for label in labels
    ]


def name_flips_table(target: str) -> str:
    """Return the name of an engine's table of flips beside the report."""
    return f"flips_{target.replace(':', '_')}.csv"
