"""Residual blocks of a network, and which of them to remove for a cost limit. Python and NumPy."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np

from lesiontk.compress.layers import Layer, count_macs, find_readers

UNITS = 4000
"""Into so many parts a cost is divided, to within which the cheapest choice is exact."""


@dataclass(frozen=True, slots=True)
class ResidualBlock:
    """The addition `add` of a `branch` to a `shortcut`, whose output takes its place without it.

    `branch` are the layers that nothing else reads, in an order in which they can run.
    """

    add: str
    shortcut: str
    branch: tuple[str, ...]


def find_blocks(layers: Sequence[Layer]) -> tuple[ResidualBlock, ...]:
    """Return the residual blocks of a network, in an order in which they can run.

    Of the two inputs of an addition, the branch is the one whose own layers have more operations;
    the shortcut may have some, such as a projection. An addition without such layers is no block,
    nor is one with a block in its branch.
    """
    macs = count_macs(layers)
    blocks = []
    for layer in layers:
        if layer.kind != "Add" or len(layer.inputs) != 2 or len(set(layer.inputs)) != 2:
            continue
        own = [_list_own(layers, layer.name, name) for name in layer.inputs]
        work = [sum(macs.get(name, 0) for name in names) for names in own]
        if work[0] != work[1]:
            branch = int(work[1] > work[0])
            blocks.append(ResidualBlock(layer.name, layer.inputs[1 - branch], own[branch]))
    additions = {block.add for block in blocks}
    return tuple(block for block in blocks if not additions & set(block.branch))


def _list_own(layers: Sequence[Layer], add: str, name: str) -> tuple[str, ...]:
    """Return the layers that nothing would read if an addition did not read the layer `name`."""
    readers = find_readers(layers)
    own: list[str] = []
    for layer in reversed(layers):
        reading = {reader.name for reader in readers.get(layer.name, ())}
        if layer.name == name:
            reading -= {add}
        elif not reading:  # the output
            continue
        if reading <= set(own) and layer.inputs:
            own.append(layer.name)
    return tuple(reversed(own))


def shorten(layers: Sequence[Layer], removed: Collection[ResidualBlock]) -> tuple[Layer, ...]:
    """Return the layers of the network without these blocks."""
    instead = {block.add: block.shortcut for block in removed}

    def follow(name: str) -> str:
        while name in instead:
            name = instead[name]
        return name

    joined = [
        replace(layer, inputs=tuple(map(follow, layer.inputs)))
        for layer in layers
        if layer.name not in instead
    ]
    needed = {follow(layers[-1].name)}
    for layer in reversed(joined):
        if layer.name in needed:
            needed.update(layer.inputs)
    return tuple(layer for layer in joined if layer.name in needed)


def choose_blocks(
    importance: Sequence[float], costs: Sequence[float], excess: float
) -> frozenset[int] | None:
    """Return the numbers of the blocks whose costs are at least `excess`, with the least importance
    in sum; None if all together cost less.

    The importance of blocks is taken to add up. Costs are rounded down to a part in `UNITS` of
    `excess` (a knapsack, by dynamic programming).
    """
    if excess <= 0:
        return frozenset()
    if sum(costs) < excess:
        return None
    weights = [UNITS if cost >= excess else math.floor(cost / excess * UNITS) for cost in costs]
    least = np.full(UNITS + 1, np.inf)  # of what is removed so far, by how much of the excess
    least[0] = 0.0
    taken = np.zeros((len(costs), UNITS + 1), np.bool_)
    before = np.arange(UNITS + 1)
    for number, (loss, weight) in enumerate(zip(importance, weights, strict=True)):
        with_it = least[np.maximum(before - weight, 0)] + loss
        taken[number] = with_it < least
        least = np.where(taken[number], with_it, least)
    if not math.isfinite(least[UNITS]):  # by rounding alone
        return frozenset(range(len(costs)))
    chosen, left = set(), UNITS
    for number in reversed(range(len(costs))):
        if taken[number, left]:
            chosen.add(number)
            left = max(left - weights[number], 0)
    return frozenset(chosen)
