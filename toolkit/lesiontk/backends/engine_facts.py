"""The facts of a converted engine: its conversion and its verification."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lesiontk.backends.backend import EngineStructure, Quantization
from lesiontk.document import Record
from lesiontk.evaluate.signal_to_noise import SignalSummary
from lesiontk.evaluate.verification import Verification


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineFacts(Record):
    """A verified engine of the `target` ``backend:precision``, in `file`, of `size_bytes`.

    `float_operators` were left in float, each as ``TYPE -> name``. `examination` is what the
    target's own tools found. `signal` is None where the engine was not derived layer by layer.
    """

    target: str
    backend: str
    precision: str
    file: str
    size_bytes: int
    labels: tuple[str, ...]
    split_hash: str
    float_operators: tuple[str, ...]
    quantization: Quantization
    structure: EngineStructure
    verification: Verification
    signal: SignalSummary | None = None
    examination: Mapping[str, Any] = field(default_factory=dict)
