"""The history of a compressed model: the facts of the models it was derived from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import takewhile
from typing import Any

from lesiontk.records import MAY_HAVE_SEEN_TEST, Artefact, unknown_facts
from lesiontk.technique import TECHNIQUES, trains_network

OF_EVERY_MODEL = ("parameters", "validation", "recalls", "epochs")
"""Facts that children remember of each model: what equal runs give again, so no latency.

What they remember besides is its technique's `TechniqueInfo.remembers`.
"""


def find_trained(stages: Iterable[str]) -> int:
    """Return the place of the model that compression began with, of the stages that made each.

    It is the last that was trained to be as it is.
    """
    return sum(1 for _ in takewhile(trains_network, stages)) - 1


def derivation_facts(facts: Mapping[str, Any], stage: str) -> list[Mapping[str, Any]]:
    """Return the record of each model of a line; the last has `facts`, and `stage` made it."""
    return [*facts.get("history", []), {"stage": stage, **facts}]


def recalls_to_keep(parent: Artefact, stage: str) -> dict[str, float]:
    """Return label -> the validation recall that a child of `parent` is to keep.

    They are those of the trained network; none for a `stage` that trains a network itself. Early
    versions recorded only the critical class's recall.
    """
    line = derivation_facts(parent.facts, parent.stage)
    stages = [str(step["stage"]) for step in line]
    first = find_trained(stages)
    if find_trained([*stages, stage]) > first:
        return {}
    critical = str(parent.facts["critical"])
    recalls = {critical: line[first]["validation"][f"recall[{critical}]"]}
    return {**recalls, **line[first].get("recalls", {})}


def inherit_facts(model: Artefact) -> dict[str, Any]:
    """Return what a model made of `model` says of it: architecture, structure, and its history.

    ``history`` has an entry for each model before, the trained one first. Of what may have seen the
    test images, all that is made of it says so.
    """
    facts = model.facts
    technique = TECHNIQUES.get(model.stage).info.remembers if model.stage in TECHNIQUES else ()
    own = {name: facts[name] for name in (*OF_EVERY_MODEL, *technique) if name in facts}
    return {
        "architecture": str(facts["architecture"]),
        **{name: facts[name] for name in ("initial_weights",) if name in facts},
        **unknown_facts(facts.get(MAY_HAVE_SEEN_TEST)),
        **structure_facts(facts),
        "history": [*facts.get("history", []), {"stage": model.stage, **own}],
    }


def structure_facts(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a model's facts say of a structure that each of its children holds."""
    carried = [name for _, technique in TECHNIQUES.items() for name in technique.info.carries]
    return {name: facts[name] for name in carried if name in facts}
