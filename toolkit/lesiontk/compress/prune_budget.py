"""Pruning budgets: operations, parameters or measured latency."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lesiontk.backends.backend import Backend
from lesiontk.backends.execution import find_fallback
from lesiontk.backends.keras.backend import read_spec
from lesiontk.compress.channel_budget import COSTS, find_next_cost
from lesiontk.compress.channel_graph import ChannelGraph
from lesiontk.compress.footprint import make_engine
from lesiontk.compress.keras_layers import read_layers
from lesiontk.data.images import ImageSet
from lesiontk.document import Record
from lesiontk.errors import DataError, MissingRequirementError
from lesiontk.records import Footprint
from lesiontk.stage import Context

Removed = frozenset[int]
Choose = Callable[[str, float], Removed]
"""Maps ``macs`` or ``parameters`` and its limit to the channels to remove."""
Build = Callable[[Removed], Any]
Compare = Callable[[Path, Path], Footprint]
"""Returns what two engine files cost, before and after."""
TRIES = 7


@dataclass(frozen=True, slots=True)
class LatencyGoal(Record):
    """The target share of the original's median latency, as this engine, on the machine `device` or
    this one."""

    engine: str
    wanted: float
    device: str = ""


class PruneBudget(ABC):
    """A cost of the original model; pruning keeps at most a share of it."""

    @property
    def goal(self) -> LatencyGoal | None:
        """The target share, if latency is the budget; no other figure contains it."""
        return None

    def next_share(self, graph: ChannelGraph, removed: Removed, multiple: int) -> float | None:
        """Return the lowest share with one more group of channels, if counted."""
        return None

    @abstractmethod
    def choose(self, share: float, choose: Choose, build: Build) -> Removed:
        """Return the channels to remove so that at most `share` stays."""

    def count(self, model: Any) -> float | None:
        """Return the share of the cost that a model has, if counted."""
        return None

    def measure(self, model: Any) -> Footprint | None:
        """Return size and latency of the original and of a model, if latency is the budget."""
        return None


class CountBudget(PruneBudget):
    """MACs or parameters, counted without building a model."""

    def __init__(self, name: str, original: Any) -> None:
        self.name = name
        self.whole = COSTS[name](read_layers(original))

    def choose(self, share: float, choose: Choose, build: Build) -> Removed:
        return choose(self.name, share * self.whole)

    def next_share(self, graph: ChannelGraph, removed: Removed, multiple: int) -> float | None:
        cost = find_next_cost(graph, removed, cost=COSTS[self.name], multiple=multiple)
        return None if cost is None else cost / self.whole

    def count(self, model: Any) -> float:
        return COSTS[self.name](read_layers(model)) / self.whole


def check_latency(target: str, backend: Backend) -> None:
    """Raise `MissingRequirementError` if engines of a back end do not run here, or are emulated."""
    state = backend.available()
    fallback = find_fallback(backend.examine_runtime()) if state.available else None
    if state.available and fallback is None:
        return
    reason = f"{fallback.detail} ({fallback.used} would run)" if fallback else state.reason
    raise MissingRequirementError(
        f"the latency of {target} cannot be measured on this machine: {reason}; expected an "
        "engine that runs here as latency_on, or keep_macs."
    )


class LatencyBudget(PruneBudget):
    """The median latency of the engine, as `compare` measures it beside the original's."""

    def __init__(
        self,
        goal: LatencyGoal,
        original: Path,
        model: Any,
        images: ImageSet,
        context: Context,
        compare: Compare,
    ) -> None:
        self._goal, self._compare = goal, compare
        self.images, self.context = images, context
        self.spec = read_spec(original)
        self.macs = COSTS["macs"](read_layers(model))
        self.original = self._convert(original, "engine-original")

    def choose(self, share: float, choose: Choose, build: Build) -> Removed:
        found: dict[float, Removed] = {}

        def measure(macs: float) -> float:
            found[macs] = choose("macs", macs * self.macs)
            footprint = self.measure(build(found[macs]))
            return footprint.after.median_ms / footprint.before.median_ms

        return found[find_share(measure, share)]

    @property
    def goal(self) -> LatencyGoal:
        return self._goal

    def measure(self, model: Any) -> Footprint:
        candidate = self.context.scratch / "candidate.keras"
        model.save(str(candidate))
        engine = self._convert(candidate, "engine-candidate")
        return self._compare(self.original, engine)

    def _convert(self, source: Path, folder: str) -> Path:
        out = self.context.scratch / folder
        return make_engine(source, self.spec, self.goal.engine, self.images, out)


def find_share(measure: Callable[[float], float], target_share: float, tries: int = TRIES) -> float:
    """Return the largest share of operations, of `tries` shares, within `target_share` of the time.

    Latency falls less than operations do, and in steps; it is measured, not modelled. Shares that
    cannot be reached count as too small. Raises `DataError` if none is fast enough.
    """
    low, high, best, fastest = 0.0, 1.0, None, 1.0
    share = target_share
    for _ in range(tries):
        try:
            ratio = measure(share)
        except DataError:
            low = share
        else:
            fastest = min(fastest, ratio)
            if ratio <= target_share:
                best = low = share
            else:
                high = share
        share = (low + high) / 2
    if best is None:
        raise DataError(
            f"no width tried is fast enough: the best takes {fastest:.2f} of the time; expected a "
            f"higher share than {target_share:.2f}, a smaller multiple or a smaller least_share."
        )
    return best
