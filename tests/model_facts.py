"""Facts of models, without a model."""

from __future__ import annotations

from typing import Any

from lesiontk.document import Record
from lesiontk.records import ModelFacts, ModelStep, Preprocessing, ValidationScores

SCORES = ValidationScores(1503, {"balanced_accuracy": 0.712, "recall[mel]": 0.64})


def make_step(stage: str, change: Record | None = None, **fields: Any) -> ModelStep:
    """Return a step that `stage` made; `change` is its own record."""
    known = {"parameters": 1000, "epochs": 4, "validation": SCORES, "recalls": {"mel": 0.64}}
    document = change.to_document() if change else {}
    return ModelStep(stage=stage, change=document, **{**known, **fields})


def make_facts(stage: str = "train", change: Record | None = None, **fields: Any) -> ModelFacts:
    """Return the facts of a small network that `stage` made."""
    known: dict[str, Any] = {
        "architecture": "cnn",
        "parameters": 409_767,
        "epochs": 6,
        "best_epoch": 5,
        "validation": SCORES,
        "recalls": {"mel": 0.64},
        "labels": ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc"),
        "task": "seven_class",
        "critical": "mel",
        "preprocessing": Preprocessing(64),
        "split_hash": "5" * 64,
    }
    document = change.to_document() if change else {}
    return ModelFacts(stage=stage, change=document, **{**known, **fields})
