"""How much of a model may stay: in operations, in parameters, or in measured latency."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lesiontk.backends.keras_backend import read_spec
from lesiontk.compress.channel_budget import COSTS
from lesiontk.compress.effect import make_engine, time_files
from lesiontk.compress.keras_layers import read_layers
from lesiontk.data.images import ImageSet
from lesiontk.errors import DataError
from lesiontk.stage import Context

Removed = frozenset[int]
Choose = Callable[[str, float], Removed]
"""Of ``macs`` or ``parameters`` and the number that may stay: the channels to remove."""
Build = Callable[[Removed], Any]
TRIES = 7


class PruneBudget(ABC):
    """What is counted of the original model, of which a share may stay."""

    @abstractmethod
    def choose(self, share: float, choose: Choose, build: Build) -> Removed:
        """Return the channels to remove so that at most `share` stays."""

    @abstractmethod
    def measure(self, model: Any) -> float:
        """Return the share that a model has."""


class CountBudget(PruneBudget):
    """MACs or parameters, which are known without building anything."""

    def __init__(self, name: str, original: Any) -> None:
        self.name = name
        self.whole = COSTS[name](read_layers(original))

    def choose(self, share: float, choose: Choose, build: Build) -> Removed:
        return choose(self.name, share * self.whole)

    def measure(self, model: Any) -> float:
        return COSTS[self.name](read_layers(model)) / self.whole


class LatencyBudget(PruneBudget):
    """The median latency as an engine, beside the original in the same run of turns."""

    def __init__(
        self, target: str, original: Path, model: Any, images: ImageSet, context: Context
    ) -> None:
        self.target, self.images, self.context = target, images, context
        self.spec = read_spec(original)
        self.macs = COSTS["macs"](read_layers(model))
        self.original = self._convert(original, "engine-original")

    def choose(self, share: float, choose: Choose, build: Build) -> Removed:
        found: dict[float, Removed] = {}

        def measure(macs: float) -> float:
            found[macs] = choose("macs", macs * self.macs)
            return self.measure(build(found[macs]))

        return found[find_share(measure, share)]

    def measure(self, model: Any) -> float:
        candidate = self.context.scratch / "candidate.keras"
        model.save(str(candidate))
        engines = {
            "original": self.original,
            "candidate": self._convert(candidate, "engine-candidate"),
        }
        medians = time_files(engines, self.images, self.context)
        return medians["candidate"] / medians["original"]

    def _convert(self, source: Path, folder: str) -> Path:
        out = self.context.scratch / folder
        return make_engine(source, self.spec, self.target, self.images, out)


def find_share(measure: Callable[[float], float], wanted: float, tries: int = TRIES) -> float:
    """Return the largest share of operations, of `tries` shares, that takes `wanted` of the time.

    Latency falls less than operations do, and in steps; it is measured, not modelled. Shares that
    cannot be had count as too small. Raises `DataError` if none is fast enough.
    """
    low, high, best, fastest = 0.0, 1.0, None, 1.0
    share = wanted
    for _ in range(tries):
        try:
            took = measure(share)
        except DataError:
            low = share
        else:
            fastest = min(fastest, took)
            if took <= wanted:
                best = low = share
            else:
                high = share
        share = (low + high) / 2
    if best is None:
        raise DataError(
            f"no width tried is fast enough: at best {fastest:.2f} of the time is left; expected a "
            f"higher share than {wanted:.2f}, a smaller multiple or a smaller least_share."
        )
    return best
