"""Compressions stand in an order in which none undoes another; the others are refused with why."""

from __future__ import annotations

import re

import pytest

from lesiontk.errors import UsageError
from lesiontk.recipe import parse_recipe
from lesiontk.stages import STAGES
from lesiontk.workflow.order import ORDER_REASONS, explain_order
from lesiontk.workflow.plan import plan_recipe

TECHNIQUES = [name for name in STAGES if STAGES.get(name).info.may_follow]
REFUSED = [
    (technique, before)
    for technique in TECHNIQUES
    for before in TECHNIQUES
    if before not in STAGES.get(technique).info.may_follow
]
OPTIONS = {
    "resize": {"image_size": 32},
    "prune": {"keep_macs": 0.5},
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
    assert ORDER_REASONS[before] in str(error.value)


@pytest.mark.parametrize(
    ("technique", "before", "said"),
    [
        ("prune", "qat", "learned ranges and roundings belong to .*; put prune before qat."),
        ("prune", "sparsify", "zeros are chosen for the kernels .*; put prune before sparsify."),
        ("sparsify", "cluster", "values that weights share .*; put sparsify before cluster."),
        ("distill", "equalize", "normalisation is folded in .*; put distil before equalize."),
        ("equalize", "cluster", "one of the two, for cluster cannot follow equalize either."),
        ("qat", "qat", "expected qat once."),
    ],
)
def test_the_error_says_what_would_be_lost_and_how_to_mend_it(
    technique: str, before: str, said: str
) -> None:
    assert re.search(said + "$", explain_order(technique, before))
