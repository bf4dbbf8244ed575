"""Which operators belong to which layer."""

from __future__ import annotations

import pytest

from lesiontk.backends.operator_groups import GraphOperator, group_operators, members_of

MOVING = ("PAD", "POOL")


def test_what_only_moves_belongs_to_what_it_reads_from() -> None:
    operators = [
        GraphOperator("padded", "PAD", ("image",)),
        GraphOperator("a", "CONV", ("padded", "weights")),
        GraphOperator("a_pool", "POOL", ("a",)),
        GraphOperator("a_pad", "PAD", ("a_pool",)),
        GraphOperator("b", "CONV", ("a_pad",)),
        GraphOperator("sum", "ADD", ("a_pool", "b")),
        GraphOperator("said", "SOFTMAX", ("sum",)),
    ]
    groups = group_operators(operators, MOVING, ignored=("SOFTMAX",))
    assert groups == {
        "padded": ("padded",),
        "a": ("a", "a_pool", "a_pad"),
        "b": ("b",),
        "sum": ("sum",),
    }
    assert members_of(groups, ["b", "a"]) == {"a", "a_pool", "a_pad", "b"}


def test_an_unknown_layer_is_a_bug_that_names_it() -> None:
    with pytest.raises(ValueError, match="no layer 'c'"):
        members_of({"a": ("a",)}, ["c"])
