"""The choice of channels to remove for a cost limit. Plain Python and NumPy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

from lesiontk.compress.channel_graph import ChannelGraph
from lesiontk.compress.layers import Layer, count_macs, count_weights
from lesiontk.errors import DataError

Scope = Literal["global", "per_layer"]
Cost = Callable[[tuple[Layer, ...]], float]


def macs_of(layers: tuple[Layer, ...]) -> int:
    """Return the multiply-accumulate operations of a network for one image."""
    return sum(count_macs(layers).values())


def parameters_of(layers: tuple[Layer, ...]) -> int:
    """Return the parameters of a network."""
    return sum(count_weights(layers).values())


COSTS: dict[str, Cost] = {"macs": macs_of, "parameters": parameters_of}


def choose_channels(
    graph: ChannelGraph,
    scores: Mapping[int, float],
    limit: float,
    *,
    cost: Cost = macs_of,
    scope: Scope = "global",
    multiple: int = 8,
    least_share: float = 0.1,
) -> frozenset[int]:
    """Return the least important channels whose removal brings the network to `limit` or below.

    ``global`` ranks the channels of all layers together, ``per_layer`` removes the same share of
    each, to within a group. Widths stay multiples of `multiple`, if the layer is that wide, and at
    least `least_share` of the original. A group of `multiple` channels is kept if the limit allows.
    Raises `DataError` if the limit cannot be reached.
    """
    plans = _RemovalPlans(graph, scores, scope, multiple, least_share)
    low, high = 0, plans.steps  # steps: `low` exceeds the limit, `high` is the maximum
    if cost(graph.narrow(plans.remove(high))) > limit:
        least = cost(graph.narrow(plans.remove(high))) / cost(graph.layers)
        raise DataError(
            f"removing channels leaves at least {least:.3f} of the cost (widths in multiples of "
            f"{multiple}, at least {least_share:.0%} of each layer); expected a higher share, a "
            "smaller multiple or a smaller least_share."
        )
    while high - low > 1:
        middle = (low + high) // 2
        if cost(graph.narrow(plans.remove(middle))) > limit:
            low = middle
        else:
            high = middle
    if cost(graph.layers) <= limit:
        return frozenset()
    removed = plans.remove(high)
    restored: set[tuple[int, ...]] = set()
    groups = plans.next_groups(removed)
    while groups:  # the most important first
        group = max(groups, key=lambda group: sum(scores[c] for c in group) / len(group))
        family = groups.pop(group)
        if cost(graph.narrow(removed - {*group})) <= limit:
            removed -= {*group}
            restored.add(family)
            groups = plans.next_groups(removed)
            if scope == "per_layer":
                groups = {g: f for g, f in groups.items() if f not in restored}
    return removed


def find_next_cost(
    graph: ChannelGraph, removed: frozenset[int], *, cost: Cost = macs_of, multiple: int = 8
) -> float | None:
    """Return the lowest cost with one more group of channels; None if nothing was removed."""
    unranked = dict.fromkeys(graph.producers(), 0.0)
    groups = _RemovalPlans(graph, unranked, "global", multiple, 1.0).next_groups(removed)
    return min((cost(graph.narrow(removed - {*group})) for group in groups), default=None)


class _RemovalPlans:
    """The possible removals, from none to all, each a superset of the previous one."""

    def __init__(
        self,
        graph: ChannelGraph,
        scores: Mapping[int, float],
        scope: Scope,
        multiple: int,
        least_share: float,
    ) -> None:
        self._families = [
            sorted(family, key=lambda channel: scores[channel])
            for family in graph.families()
            if family[0] in scores  # unranked channels stay
        ]
        self._floors = [
            round_up(max(1, int(len(family) * least_share)), multiple, len(family))
            for family in self._families
        ]
        self._multiple, self._scope = multiple, scope
        ranked = sorted(scores, key=lambda channel: scores[channel])
        self._ranks = {channel: rank for rank, channel in enumerate(ranked)}
        self.steps = len(ranked) if scope == "global" else max(map(len, self._families), default=0)

    def remove(self, step: int) -> frozenset[int]:
        """Return the channels removed at a step."""
        removed: list[int] = []
        for family, floor in zip(self._families, self._floors, strict=True):
            if self._scope == "global":
                wanted = sum(self._ranks[channel] < step for channel in family)
            else:
                wanted = len(family) * step // max(self.steps, 1)
            kept = round_up(max(len(family) - wanted, floor), self._multiple, len(family))
            removed += family[: len(family) - kept]
        return frozenset(removed)

    def next_groups(self, removed: frozenset[int]) -> dict[tuple[int, ...], tuple[int, ...]]:
        """Return the removed channels that the next width of each family would keep -> the
        family."""
        found = {}
        for family in self._families:
            removed_here = [channel for channel in family if channel in removed]
            if removed_here:
                kept = len(family) - len(removed_here)
                width = round_up(kept + 1, self._multiple, len(family))
                found[tuple(removed_here[kept - width :])] = tuple(family)
        return found


def round_up(width: int, multiple: int, widest: int) -> int:
    """Return the next multiple that is not wider than `widest`, which any layer may keep."""
    return min(-(-width // multiple) * multiple, widest)
