"""How near engines run to the measured peak of the machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lesiontk.backends import find_backend
from lesiontk.backends.backend import Backend
from lesiontk.bench.peak import Peak
from lesiontk.document import Record

VALUE_BYTES = {"int8": 1, "int16x8": 2}
"""Bytes of an activation by precision; others compute in float32 on a CPU."""
INTEGER = ("int8", "int16x8", "dynamic_int8")


@dataclass(frozen=True, slots=True, kw_only=True)
class Work(Record):
    """Multiply-accumulate operations of an engine for one image, and the bytes that its layers with
    weights move: weights, inputs and outputs, each once."""

    macs: int
    bytes_moved: int

    @property
    def intensity(self) -> float:
        """Operations per byte, two for a multiply-accumulate."""
        return 2 * self.macs / self.bytes_moved


@dataclass(frozen=True, slots=True)
class RooflinePoint:
    """An engine on the roofline: operations per byte, the 10^9 operations per second that it
    achieves and those that are attainable there."""

    name: str
    macs: int
    intensity: float
    gops: float
    roof_gops: float

    @property
    def share(self) -> float:
        """Achieved over attainable; above 1 if its kernels are better than those of the probe."""
        return self.gops / self.roof_gops


def count_work(path: Path, precision: str) -> Work | None:
    """Return the work of an engine file; None if its back end does not know it."""
    backend: Backend = find_backend(path)()
    costs = [cost for cost in backend.count_costs(path) if cost.macs]
    if not costs:
        return None
    values = sum(cost.values for cost in costs) * VALUE_BYTES.get(precision, 4)
    weights = sum(backend.inspect(path).weight_bytes.values())
    return Work(macs=sum(cost.macs for cost in costs), bytes_moved=values + weights)


def find_peak(peaks: Sequence[Peak], threads: int) -> Peak | None:
    """Return the peak on so many threads, if it was measured."""
    return next((peak for peak in peaks if peak.threads == threads), None)


def locate_engine(
    name: str, precision: str, work: Work, median_ms: float, peak: Peak
) -> RooflinePoint:
    """Return an engine's place on the roofline."""
    integer = precision in INTEGER
    return RooflinePoint(
        name,
        work.macs,
        work.intensity,
        2e-6 * work.macs / median_ms,
        peak.find_roof(work.intensity, integer=integer),
    )
