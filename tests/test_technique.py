"""Compressions stand in an order in which none undoes another; the others are refused with why."""

from __future__ import annotations

import re

import pytest

from lesiontk.errors import UsageError
from lesiontk.recipe import parse_recipe
from lesiontk.technique import ORIGINS, TECHNIQUES, check_order, explain_order
from lesiontk.workflow.plan import plan_recipe

FREE = {*ORIGINS, "distill", "load_weights", "resize", "prune", "prune_blocks"}
MAY_FOLLOW = {
    "distill": FREE,
    "load_weights": FREE,
    "resize": FREE,
    "prune": FREE,
    "prune_blocks": FREE,
    "sparsify": FREE,
    "cluster": FREE | {"sparsify"},
    "equalize": FREE | {"sparsify"},
    "qat": FREE | {"sparsify", "cluster", "equalize"},
}
"""What is right for the shipped techniques; that they say so themselves is what is tested."""
REFUSED = [
    (technique, before)
    for technique, allowed in MAY_FOLLOW.items()
    for before in MAY_FOLLOW
    if before not in allowed
]
OPTIONS = {
    "resize": {"image_size": 32},
    "prune": {"keep_macs": 0.5},
    "prune_blocks": {"keep_macs": 0.5},
    "distill": {"teacher": "teacher.keras"},
    "load_weights": {"file": "weights.keras"},
}


@pytest.mark.parametrize(("technique", "before"), REFUSED)
def test_every_order_that_is_refused_is_refused_with_the_reason(
    technique: str, before: str
) -> None:
    steps = [{name: OPTIONS.get(name, {})} for name in (before, technique)]
    data = {"source": "synthetic", "image_size": 48}
    with pytest.raises(UsageError, match=f"^{technique} cannot follow {before}:") as error:
        plan_recipe(parse_recipe({"name": "tiny", "data": data, "compress": steps}))
    assert TECHNIQUES.get(before).info.why_last in str(error.value)


@pytest.mark.parametrize("technique", MAY_FOLLOW)
def test_every_order_that_undoes_nothing_is_allowed(technique: str) -> None:
    assert set(MAY_FOLLOW) == set(TECHNIQUES)
    for before in MAY_FOLLOW[technique]:
        check_order(technique, [before])


def test_what_an_earlier_technique_left_counts_too() -> None:
    check_order("qat", ["train", "sparsify", "equalize"])
    with pytest.raises(UsageError, match="cluster cannot follow equalize"):
        check_order("cluster", ["train", "equalize", "distill"])


@pytest.mark.parametrize(
    ("technique", "before", "said"),
    [
        ("prune", "qat", "learned ranges and rounding belong to .*; put prune before qat."),
        (
            "prune",
            "sparsify",
            "zeros are chosen for the current kernels; .* put prune before sparsify.",
        ),
        ("sparsify", "cluster", "clusters are computed for .*; put sparsify before cluster."),
        ("distill", "equalize", "normalization is folded and .*; put distill before equalize."),
        ("equalize", "cluster", "one of the two, because cluster cannot follow equalize either."),
        ("qat", "qat", "expected qat once."),
    ],
)
def test_the_error_says_what_would_be_lost_and_how_to_mend_it(
    technique: str, before: str, said: str
) -> None:
    assert re.search(said + "$", explain_order(technique, before))
