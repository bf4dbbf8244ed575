"""The steps that made a published network in words, and its recipe's orders for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lesiontk.compress.model_history import find_trained
from lesiontk.document import Record
from lesiontk.records import ModelFacts
from lesiontk.technique import describe_step


@dataclass(frozen=True, slots=True)
class DescribedStep(Record):
    """The stage of a step, and what it changed, in words."""

    step: str
    what: str


def describe_steps(model: ModelFacts) -> tuple[DescribedStep, ...]:
    """Return what a compressed model was, step by step, and is now; empty for any other."""
    if not model.history:
        return ()
    return tuple(DescribedStep(step.stage, describe_step(step)) for step in model.line)


def list_compressions(model: ModelFacts) -> tuple[DescribedStep, ...]:
    """Return the steps after the network was trained."""
    return describe_steps(model)[find_trained(step.stage for step in model.line) + 1 :]


def shorten_orders(
    compress: Sequence[Mapping[str, Mapping[str, Any]]], root: Path
) -> tuple[dict[str, dict[str, Any]], ...]:
    """Return a recipe's compressions with the files that they name as seen from `root`."""

    def shorten(options: Mapping[str, Any]) -> dict[str, Any]:
        shorter = dict(options)
        for name in {"teacher", "file"} & set(options):
            path = Path(options[name]).resolve()
            inside = path.is_relative_to(root.resolve())
            shorter[name] = str(path.relative_to(root.resolve()) if inside else Path(path.name))
        return shorter

    return tuple({name: shorten(options) for name, options in e.items()} for e in compress)
