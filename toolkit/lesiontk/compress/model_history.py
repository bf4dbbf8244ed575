"""The history of a compressed model: the facts of the models it was derived from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import takewhile

from lesiontk.document import Record
from lesiontk.records import ModelFacts, ModelStep
from lesiontk.technique import trains_network


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelOrigin:
    """The origin of a model: the facts of its stage before the model is measured.

    `change` is the stage's record, which is part of the history of the model's children.
    """

    stage: str
    architecture: str
    change: Record | None = None
    may_have_seen_test: bool = False
    history: tuple[ModelStep, ...] = ()


def derive_model(
    parent: ModelFacts, stage: str, change: Record, *, may_have_seen_test: bool = False
) -> ModelOrigin:
    """Return the origin of a model that `stage` makes of `parent`.

    Of what may have seen the test images, all that is made of it says so.
    """
    return ModelOrigin(
        stage=stage,
        architecture=parent.architecture,
        change=change,
        may_have_seen_test=parent.may_have_seen_test or may_have_seen_test,
        history=(*parent.history, parent.step),
    )


def find_trained(stages: Iterable[str]) -> int:
    """Return the index of the last trained model among the stages of a line, before compression."""
    return sum(1 for _ in takewhile(trains_network, stages)) - 1


def recalls_to_keep(parent: ModelFacts, stage: str) -> dict[str, float]:
    """Return label -> the validation recall that a child of `parent` is to keep.

    They are those of the trained network; none for a `stage` that trains a network itself.
    """
    stages = [step.stage for step in parent.line]
    first = find_trained(stages)
    return {} if find_trained([*stages, stage]) > first else dict(parent.line[first].recalls)
