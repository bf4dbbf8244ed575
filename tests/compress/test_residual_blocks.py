"""Residual blocks are found, and the choice of those to remove is the cheapest one."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lesiontk.compress.channel_budget import macs_of, parameters_of
from lesiontk.compress.layers import Layer, count_macs
from lesiontk.compress.residual_blocks import ResidualBlock, choose_blocks, find_blocks, shorten

SHAPE = (8, 8, 4)


def conv(name: str, before: str) -> Layer:
    return Layer(name, "Conv2D", (before,), SHAPE, (3, 3))


def add(name: str, *inputs: str) -> Layer:
    return Layer(name, "Add", inputs, SHAPE)


LAYERS = (
    Layer("image", "InputLayer", (), (8, 8, 3)),
    conv("stem", "image"),
    conv("a1", "stem"),
    conv("a2", "a1"),
    add("first", "stem", "a2"),  # the shortcut is the block's input
    conv("b1", "first"),
    conv("b2", "b1"),
    Layer("projection", "Conv2D", ("first",), SHAPE),
    add("second", "b2", "projection"),  # the shortcut has weights, and comes last
    conv("c1", "second"),
    conv("c2", "c1"),
    add("inner", "c1", "c2"),
    add("third", "second", "inner"),  # contains a block
    add("both", "third", "third"),  # no block
    Layer("pool", "GlobalAveragePooling2D", ("both",), (4,)),
    Layer("logits", "Dense", ("pool",), (7,)),
)


def test_the_branch_is_what_has_more_operations() -> None:
    assert find_blocks(LAYERS) == (
        ResidualBlock("first", "stem", ("a1", "a2")),
        ResidualBlock("second", "projection", ("b1", "b2")),
        ResidualBlock("inner", "c1", ("c2",)),
    )


def test_what_is_read_elsewhere_is_not_part_of_a_block() -> None:
    read = replace(LAYERS[-3], inputs=("third", "a1"))
    blocks = find_blocks((*LAYERS[:-3], read, *LAYERS[-2:]))
    assert blocks[0].branch == ("a2",)
    assert len(blocks) == 3


@pytest.mark.parametrize("numbers", [(0,), (1,), (2,), (0, 1), (0, 1, 2)])
def test_without_blocks_their_layers_are_gone_and_no_others(numbers: tuple[int, ...]) -> None:
    blocks = find_blocks(LAYERS)
    removed = [blocks[number] for number in numbers]
    left = shorten(LAYERS, removed)
    names = {layer.name for layer in left}
    gone = {name for block in removed for name in (block.add, *block.branch)}
    assert names == {layer.name for layer in LAYERS} - gone
    assert all(set(layer.inputs) <= names for layer in left)
    cost = sum(count_macs(LAYERS).get(name, 0) for name in gone)
    assert macs_of(left) == macs_of(LAYERS) - cost
    assert parameters_of(left) < parameters_of(LAYERS)
    assert left[-1].name == "logits"


@settings(max_examples=100)
@given(
    blocks=st.lists(st.tuples(st.floats(0.001, 5), st.floats(0.01, 1)), min_size=1, max_size=8),
    share=st.floats(0, 1.2),
)
def test_no_other_choice_of_blocks_is_less_important(
    blocks: list[tuple[float, float]], share: float
) -> None:
    """Compared with all choices, within the rounding of costs."""
    importance, costs = [b[0] for b in blocks], [b[1] for b in blocks]
    excess = share * sum(costs)
    chosen = choose_blocks(importance, costs, excess)
    if share > 1:
        assert chosen is None
        return
    assert chosen is not None
    assert sum(costs[number] for number in chosen) >= excess * (1 - 1e-12)
    rounded = excess * (1 + len(blocks) / 4000)  # what rounding down may ask for
    best = min(
        (
            sum(importance[number] for number in numbers)
            for size in range(len(blocks) + 1)
            for numbers in itertools.combinations(range(len(blocks)), size)
            if sum(costs[number] for number in numbers) >= rounded
        ),
        default=sum(importance),
    )
    assert sum(importance[number] for number in chosen) <= best + 1e-9


def test_the_least_important_block_is_not_always_the_one_to_go() -> None:
    """Two cheap ones would be needed for the cost of one that is a little more important."""
    assert choose_blocks([1.0, 1.0, 1.5], [0.2, 0.2, 0.4], 0.35) == {2}
    assert choose_blocks([1.0, 1.0, 2.5], [0.2, 0.2, 0.4], 0.35) == {0, 1}
