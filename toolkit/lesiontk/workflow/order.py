"""Why one compression cannot follow another: what the earlier one left would be lost."""

from __future__ import annotations

from lesiontk.stages import STAGES

ORDER_REASONS = {
    "sparsify": "zeros are chosen for the kernels as they are; other channels, or a training that "
    "does not hold the zeros, would undo them",
    "cluster": "the values that weights share are found for the kernels as they are; other zeros, "
    "channels or scales, or a free training, would part them again",
    "equalize": "normalisation is folded in and the ranges are even for the weights as they are; "
    "another training or other channels would make them uneven again",
    "qat": "the learned ranges and roundings belong to the weights and channels as they are; what "
    "changes these makes them wrong",
}
"""Technique -> why not every other may follow it. Which may is each stage's `may_follow`."""


def explain_order(technique: str, before: str) -> str:
    """Return why a technique cannot follow the stage `before`, and what to do instead."""
    allowed = STAGES.get(technique).info.may_follow
    why = f" {ORDER_REASONS[before]}." if before in ORDER_REASONS else ""
    if technique == before:
        mend = f"expected {technique} once"
    elif technique in STAGES.get(before).info.may_follow:
        mend = f"put {technique} before {before}"
    else:
        mend = f"expected one of the two, for {before} cannot follow {technique} either"
    return (
        f"{technique} cannot follow {before}:{why} {technique} may follow {', '.join(allowed)}; "
        f"{mend}."
    )
