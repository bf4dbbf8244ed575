"""Gates on latency, size and memory.

Quantiles of latency are tested on the raw samples, by order statistics (David & Nagaraja, Order
Statistics, 2003, section 7.1), which are exact for independent samples of any distribution. Samples
of one round are not independent: where rounds have several, the wider of these bounds and of a
bootstrap over the rounds counts. The bootstrap alone never goes beyond the largest sample, which
with few samples is often below a high quantile. The bounds apply to this run on this machine. Size
and memory are single values, compared exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from lesiontk.evaluate.latency_rounds import Rounds, bound_by_rounds
from lesiontk.evaluate.verdict import Comparand, GateVerdict, Outcome
from lesiontk.recipe.gate_grammar import Gate

CONFIDENCE = 0.95
"""The confidence of a latency's bounds if the gate specifies none."""
QUANTILES = {"p90_ms": 0.9, "median_ms": 0.5}
MEGABYTE = 1_000_000


@dataclass(frozen=True, slots=True)
class DeviceFigures:
    """Raw latencies in ms by round, bytes of the file, and of peak memory if measured.

    `not_timed` is the reason why the latencies are not valid, for example emulation; else empty.
    `device` is where they were measured, if not on this machine.
    """

    rounds_ms: Rounds
    size_bytes: int
    peak_memory_bytes: int | None
    not_timed: str = ""
    device: str = ""

    @property
    def place(self) -> str:
        """`` on DEVICE``, or empty for this machine."""
        return f" on {self.device}" if self.device else ""


def bound_quantile(
    samples: Sequence[float], quantile: float, confidence: float
) -> tuple[float | None, float | None]:
    """Return one-sided lower and upper bounds of a quantile; None if there are too few samples.

    The upper bound is the k-th smallest sample for the least k with P(Bin(n, q) < k) >= confidence.
    """
    from scipy.stats import binom

    ordered, n = np.sort(np.asarray(samples, dtype=np.float64)), len(samples)
    at_most = binom.cdf(np.arange(n), n, quantile)  # P(X <= k - 1) for the k-th smallest
    upper = np.flatnonzero(at_most >= confidence)
    lower = np.flatnonzero(1 - at_most >= confidence)  # P(X >= k)
    return (
        float(ordered[lower[-1]]) if lower.size else None,
        float(ordered[upper[0]]) if upper.size else None,
    )


def judge_device(
    engine: str, gate: Gate, figures: DeviceFigures | None, not_measured: str
) -> GateVerdict:
    """Return the verdict of a gate on a device figure; `not_measured` is the reason if there is
    none."""
    verdict = GateVerdict(
        engine=engine,
        gate=str(gate),
        metric=gate.metric,
        comparand=Comparand.DEVICE,
        outcome=Outcome.NOT_SHOWN,
        limit=gate.limit,
        reason=not_measured,
    )
    if figures is None:
        return verdict
    if gate.metric in QUANTILES:
        return _judge_latency(verdict, gate, figures)
    size = figures.size_bytes if gate.metric == "size_mb" else figures.peak_memory_bytes
    if size is None:
        return replace(verdict, reason=figures.not_timed or "memory was not measured")
    value = size / MEGABYTE
    return _conclude(verdict, value, value, value, f"as measured{figures.place}")


def _judge_latency(verdict: GateVerdict, gate: Gate, figures: DeviceFigures) -> GateVerdict:
    if figures.not_timed or not figures.rounds_ms:
        return replace(verdict, reason=figures.not_timed or "nothing was timed")
    confidence = gate.confidence or CONFIDENCE
    quantile = QUANTILES[gate.metric]
    samples = [value for group in figures.rounds_ms for value in group]
    rounds = len(figures.rounds_ms)
    low, high = bound_quantile(samples, quantile, confidence)
    method = f"order statistics of {rounds} rounds{figures.place}"
    if len(samples) > rounds:
        lower, upper = bound_by_rounds(figures.rounds_ms, quantile, confidence)
        low = None if low is None or lower is None else min(low, lower)
        high = None if high is None or upper is None else max(high, upper)
        method = (
            f"the wider of a bootstrap over {rounds} rounds and order statistics of "
            f"{len(samples)} samples{figures.place}"
        )
    measured = float(np.quantile(samples, quantile))
    stated = replace(verdict, confidence=confidence)
    return _conclude(stated, measured, low, high, method)


def _conclude(
    verdict: GateVerdict, measured: float, low: float | None, high: float | None, method: str
) -> GateVerdict:
    outcome, reason = Outcome.NOT_SHOWN, ""
    if high is not None and high <= verdict.limit:
        outcome = Outcome.PASSED
    elif low is not None and low > verdict.limit:
        outcome = Outcome.FAILED
    else:
        shown = " to ".join("unknown" if x is None else f"{x:.4g}" for x in (low, high))
        reason = (
            f"{measured:.4g} was measured, with bounds {shown}; use more rounds (bench.rounds) or "
            "an idle machine"
        )
    return replace(
        verdict,
        measured=measured,
        low=low,
        high=high,
        method=method,
        outcome=outcome,
        reason=reason,
    )
