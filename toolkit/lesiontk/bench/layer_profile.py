"""Latency of the layers of an engine, under the names of the Keras model, the slowest first.

Run as ``python -m lesiontk.bench.layer_profile ENGINE ROUNDS THREADS``; prints a `LayerProfile` as
JSON.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lesiontk.backends import find_backend
from lesiontk.backends.operator_profile import OperatorCost, OperatorProfile, keras_layer_of
from lesiontk.bench.exit_code import exit_as_lesiontk
from lesiontk.bench.timing import Latency
from lesiontk.document import Record
from lesiontk.errors import MissingRequirementError
from lesiontk.evaluate.latency_rounds import draw_rounds, resample_quantile
from lesiontk.files.regular_file import check_regular


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerLatency(Record):
    """The median ms of a layer's operators, with its interval, and its `share` of all layers, 0..1.

    `kinds` are the operators in the runtime. `gops` are 10^9 operations per second, two for each of
    the `macs`; both are None for a layer without weights.
    """

    layer: str
    kinds: tuple[str, ...]
    median_ms: float
    low_ms: float
    high_ms: float
    share: float
    macs: int | None = None
    gops: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerProfile(Record):
    """The layers of an `engine`, the slowest first, measured by `method` on `threads` threads.

    `whole_ms` is the latency of the engine without a profiler in the same rounds, `coverage` the
    sum of the layers' medians over its median. Intervals are at level `confidence`.
    """

    engine: str
    method: str
    threads: int
    rounds: int
    whole_ms: Latency
    coverage: float
    layers: tuple[LayerLatency, ...]
    confidence: float = 0.95


def summarize_layers(
    engine: str,
    profile: OperatorProfile,
    costs: Sequence[OperatorCost],
    threads: int,
    confidence: float = 0.95,
) -> LayerProfile:
    """Return the operators of a profile by layer, the slowest first.

    The operators of a layer are added in each round; intervals are bootstraps over the rounds.
    """
    macs: dict[str, int] = {}
    for cost in costs:
        if cost.macs:
            layer = keras_layer_of(cost.name)
            macs[layer] = macs.get(layer, 0) + cost.macs
    samples: dict[str, np.ndarray[tuple[int], np.dtype[np.float64]]] = {}
    kinds: dict[str, dict[str, None]] = {}
    rounds = len(profile.whole_ms)
    for operator in profile.operators:
        layer = keras_layer_of(operator.name)
        samples[layer] = samples.get(layer, np.zeros(rounds)) + np.array(operator.samples_ms)
        kinds.setdefault(layer, {}).update({operator.kind: None} if operator.kind else {})
    drawn = draw_rounds(rounds)
    tail = (1 - confidence) / 2
    total = sum(float(np.median(found)) for found in samples.values())
    layers = []
    for layer, found in samples.items():
        median = float(np.median(found))
        resampled = resample_quantile(found[:, np.newaxis].tolist(), 0.5, drawn)
        low, high = np.quantile(resampled, [tail, 1 - tail])
        work = macs.get(layer)
        layers.append(
            LayerLatency(
                layer=layer,
                kinds=tuple(kinds[layer]),
                median_ms=median,
                low_ms=float(low),
                high_ms=float(high),
                share=median / total if total else 0.0,
                macs=work,
                gops=2e-6 * work / median if work and median else None,
            )
        )
    whole = Latency.of(profile.whole_ms)
    return LayerProfile(
        engine=engine,
        method=profile.method,
        threads=threads,
        rounds=rounds,
        whole_ms=whole,
        coverage=total / whole.median,
        layers=tuple(sorted(layers, key=lambda found: -found.median_ms)),
        confidence=confidence,
    )


def profile_engine(path: Path, rounds: int, threads: int) -> LayerProfile:
    """Return the layers of an engine file, the slowest first; measured in this process.

    Raises `DataError` for a file that is no engine, `UsageError` for a back end without profile,
    `MissingRequirementError` where its runtime is missing or emulated.
    """
    check_regular(path, "engine file")
    backend = find_backend(path)()
    availability = backend.available()
    if not availability.available:
        raise MissingRequirementError(f"{path.name}: {availability.reason}")
    profile = backend.profile(path, rounds=rounds, threads=threads)
    spec = backend.read_spec(path)
    name = f"{spec.backend}:{spec.precision}"
    return summarize_layers(name, profile, backend.count_costs(path), threads)


if __name__ == "__main__":
    with exit_as_lesiontk():
        found = profile_engine(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
        sys.stdout.write(json.dumps(found.to_document()) + "\n")
