"""Budgets are kept, widths are what kernels like, the least important goes first."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lesiontk.compress.channel_budget import (
    COSTS,
    choose_channels,
    find_next_cost,
    macs_of,
    round_up,
)
from lesiontk.compress.channel_graph import ChannelGraph, derive_channels
from lesiontk.compress.layers import Layer
from lesiontk.errors import DataError


def make_graph(*widths: int) -> ChannelGraph:
    """A chain of 3 x 3 convolutions on 8 x 8 places."""
    layers = [Layer("image", "InputLayer", (), (8, 8, 3))]
    for number, width in enumerate(widths):
        before = layers[-1].name
        layers.append(Layer(f"conv{number}", "Conv2D", (before,), (8, 8, width), (3, 3)))
    layers.append(Layer("pool", "GlobalAveragePooling2D", (layers[-1].name,), (widths[-1],)))
    layers.append(Layer("logits", "Dense", ("pool",), (4,)))
    return derive_channels(layers)


def random_scores(graph: ChannelGraph, seed: int) -> dict[int, float]:
    generator = np.random.default_rng(seed)
    return {channel: float(generator.random()) for channel in graph.producers()}


@settings(max_examples=60)
@given(
    widths=st.lists(st.integers(4, 40), min_size=1, max_size=5),
    share=st.floats(0.3, 0.95),
    scope=st.sampled_from(["global", "per_layer"]),
    cost=st.sampled_from(list(COSTS)),
    seed=st.integers(0, 5),
)
def test_the_limit_is_kept_and_no_channel_goes_in_vain(
    widths: list[int], share: float, scope: Any, cost: str, seed: int
) -> None:
    graph = make_graph(*widths)
    count, scores = COSTS[cost], random_scores(graph, seed)
    limit = share * count(graph.layers)
    options: dict[str, Any] = {"cost": count, "scope": scope, "multiple": 1, "least_share": 0.05}
    removed = choose_channels(graph, scores, limit, **options)
    assert removed
    assert count(graph.narrow(removed)) <= limit
    if scope == "global":
        best = max(removed, key=lambda channel: scores[channel])
        assert count(graph.narrow(removed - {best})) > limit


@settings(max_examples=40)
@given(seed=st.integers(0, 50), multiple=st.sampled_from([4, 8]))
def test_widths_are_multiples(seed: int, multiple: int) -> None:
    graph = make_graph(32, 48, 20)
    removed = choose_channels(
        graph, random_scores(graph, seed), 0.5 * macs_of(graph.layers), multiple=multiple
    )
    for layer, whole in zip(graph.narrow(removed), graph.layers, strict=True):
        if layer.kind == "Conv2D":
            assert layer.channels % multiple == 0 or layer.channels == whole.channels
            assert layer.channels >= 0.1 * whole.channels


def test_the_least_important_channels_go() -> None:
    graph = make_graph(16, 16)
    scores = {channel: float(channel) for channel in graph.producers()}
    removed = choose_channels(graph, scores, 0.6 * macs_of(graph.layers), multiple=1)
    assert max(removed) < min(set(scores) - removed)
    per_layer = choose_channels(
        graph, scores, 0.6 * macs_of(graph.layers), multiple=1, scope="per_layer"
    )
    first, second = graph.families()
    assert abs(len(per_layer & set(first)) - len(per_layer & set(second))) <= 1


@settings(max_examples=60)
@given(
    widths=st.lists(st.integers(4, 40), min_size=1, max_size=4),
    share=st.floats(0.3, 0.95),
    scope=st.sampled_from(["global", "per_layer"]),
    multiple=st.sampled_from([1, 4, 8]),
    seed=st.integers(0, 5),
)
def test_no_group_of_channels_goes_that_there_is_room_for(
    widths: list[int], share: float, scope: Any, multiple: int, seed: int
) -> None:
    graph = make_graph(*widths)
    limit = share * macs_of(graph.layers)
    options: dict[str, Any] = {"scope": scope, "multiple": multiple, "least_share": 0.05}
    try:
        removed = choose_channels(graph, random_scores(graph, seed), limit, **options)
    except DataError:
        return
    assert macs_of(graph.narrow(removed)) <= limit
    nearest = find_next_cost(graph, removed, multiple=multiple)
    assert nearest is not None
    if scope == "global":
        assert nearest > limit
    for layer, whole in zip(graph.narrow(removed), graph.layers, strict=True):
        if layer.kind == "Conv2D":
            assert layer.channels % multiple == 0 or layer.channels == whole.channels


def test_a_group_that_costs_little_is_given_back() -> None:
    """Both layers of 16 lose 8 when one of them is not enough: 0.36 of the cost, not 0.7."""
    layers = [Layer("image", "InputLayer", (), (64, 64, 3))]
    layers.append(Layer("first", "Conv2D", ("image",), (32, 32, 16), (3, 3)))
    layers.append(Layer("second", "Conv2D", ("first",), (16, 16, 16), (3, 3)))
    layers.append(Layer("pool", "GlobalAveragePooling2D", ("second",), (16,)))
    layers.append(Layer("logits", "Dense", ("pool",), (7,)))
    graph = derive_channels(layers)
    _, second = graph.families()
    scores = {channel: float(channel not in second) for channel in graph.producers()}
    whole = macs_of(graph.layers)
    removed = choose_channels(graph, scores, 0.7 * whole)
    assert macs_of(graph.narrow(removed)) / whole == pytest.approx(0.5, abs=0.01)
    assert find_next_cost(graph, removed) == whole
    assert find_next_cost(graph, frozenset()) is None


def test_what_costs_little_enough_is_left_alone() -> None:
    graph = make_graph(8, 8)
    assert choose_channels(graph, random_scores(graph, 1), macs_of(graph.layers)) == frozenset()


def test_a_limit_that_cannot_be_kept_is_an_error_that_says_what_can() -> None:
    graph = make_graph(16, 16)
    with pytest.raises(DataError, match=r"leaves at least 0\.\d+ of the cost .*multiples of 8"):
        choose_channels(graph, random_scores(graph, 1), 0.01 * macs_of(graph.layers))


def test_rounding() -> None:
    assert [round_up(width, 8, 64) for width in (1, 8, 9, 64)] == [8, 8, 16, 64]
    assert round_up(9, 8, 10) == 10  # any layer may stay as it is
