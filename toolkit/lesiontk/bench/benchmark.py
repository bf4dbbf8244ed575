"""A benchmark: engines timed in turns, each beside its full-precision parent, and the verdicts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

from lesiontk.backends.execution import Execution, name_emulator
from lesiontk.document import Record
from lesiontk.evaluate.bootstrap import Estimate
from lesiontk.evaluate.comparison import Comparison
from lesiontk.evaluate.operating_point import OperatingEvaluation
from lesiontk.evaluate.temperature import TemperatureEvaluation
from lesiontk.evaluate.verdict import GateVerdict, Unresolved, sort_verdicts
from lesiontk.stage import REFERENCE
from lesiontk.system.machine import Machine

TRAINED = f"@{REFERENCE}"
"""Behind the target of an engine of the model as it was before pruning and the like."""

FULL_PRECISION = "float32"


Value = TypeVar("Value")


def is_trained(target: str) -> bool:
    """Return whether a target is of the model as it was before compression."""
    return target.endswith(TRAINED)


@dataclass(frozen=True, slots=True)
class Latency(Record):
    """Percentiles in ms of `n` timings; `p10` is None where it was not kept."""

    median: float
    p90: float
    n: int
    p10: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ParentComparison(Comparison):
    """An engine against its full-precision `parent`, named by its target.

    `speedup` is the ratio of median latencies, above 1 where the engine is faster, with its
    interval at `confidence`; None where either was emulated. `size_ratio` is the parent's size over
    the engine's.
    """

    DERIVED: ClassVar[tuple[str, ...]] = ("balanced_accuracy_delta",)

    parent: str
    speedup: float | None
    size_ratio: float
    speedup_interval: tuple[float, float] | None = None

    @property
    def balanced_accuracy_delta(self) -> float | None:
        """The engine's balanced accuracy less the parent's."""
        return self.differences["balanced_accuracy"].value


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineRow(Record):
    """One engine of a benchmark, by its `target` such as ``tflite:int8``.

    `engine` is its artefact or file. Sizes and memory are in bytes, `image_size` in pixels a side.
    `metrics` and what else is of the `n` test images is empty or None where no labels were at hand,
    `latency_ms` where nothing was timed. `versus_parent` is None for an engine without a parent.
    """

    DERIVED: ClassVar[tuple[str, ...]] = ("emulated_by",)

    engine: str
    target: str
    backend: str
    precision: str
    threads: int
    size_bytes: int
    latency_ms: Latency | None = None
    deflated_bytes: int | None = None
    peak_memory_bytes: int | None = None
    image_size: int | None = None
    execution: tuple[Execution, ...] = ()
    n: int | None = None
    lesions: int | None = None
    confusion: tuple[tuple[int, ...], ...] = ()
    metrics: Mapping[str, Estimate] = field(default_factory=dict)
    operating_point: OperatingEvaluation | None = None
    temperature: TemperatureEvaluation | None = None
    versus_parent: ParentComparison | None = None

    @classmethod
    def upgrade(cls, document: dict[str, Any]) -> dict[str, Any]:
        """Return the fields; the first rows named no target, and unjudged ones had no metrics."""
        target = f"{document.get('backend')}:{document.get('precision')}"
        return {"target": target, **document, "metrics": document.get("metrics") or {}}

    @property
    def emulated_by(self) -> str | None:
        """What ran in the place of the engine's runtime; None if that itself ran.

        The scores of an emulated engine are those of its graph's arithmetic; its latency and its
        memory are those of another program.
        """
        return name_emulator(self.execution)

    @property
    def name(self) -> str:
        """The target for people: with a mark where it was emulated."""
        return self.target + (" (emulated)" if self.emulated_by else "")

    @property
    def is_reduced(self) -> bool:
        """Whether it is of less than was trained: of lower precision, or compressed."""
        compressed = self.versus_parent is not None and is_trained(self.versus_parent.parent)
        return self.precision != FULL_PRECISION or (compressed and not is_trained(self.target))

    @property
    def has_own_parent(self) -> bool:
        """Whether its parent is of the same runtime, so that speeds compare like with like."""
        versus = self.versus_parent
        return versus is not None and versus.parent.partition(":")[0] == self.backend

    @property
    def latency(self) -> Latency:
        """The latency of an engine that was timed; `ValueError` for any other."""
        return _known(self.latency_ms, self, "timed")

    @property
    def point(self) -> OperatingEvaluation:
        """The operating point of an engine that was judged; `ValueError` for any other."""
        return _known(self.operating_point, self, "judged")

    @property
    def scaled(self) -> TemperatureEvaluation:
        """The temperature of an engine that was judged; `ValueError` for any other."""
        return _known(self.temperature, self, "judged")

    def describe_fallbacks(self) -> list[str]:
        """Return a sentence for each thing that fell back; none where that is not known."""
        return [part.describe() for part in self.execution if part.fell_back]


def _known(value: Value | None, row: EngineRow, how: str) -> Value:
    if value is None:
        raise ValueError(f"{row.target} was not {how}")
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark(Record):
    """Engines timed in turns on one `machine`, and what the `gates` found of them.

    `gates` are lines of the grammar, `gate` has the verdict of each on each engine. `labels` and
    what else is of a recipe's test split is empty for files without labels. Intervals are at level
    `confidence`. `findings` are sentences without their full stop, what matters most first.
    """

    rows: tuple[EngineRow, ...]
    machine: Machine
    threads: int
    gates: tuple[str, ...] = ()
    gate: tuple[GateVerdict, ...] = ()
    unresolved: Unresolved = Unresolved.WARN
    findings: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    critical: str = ""
    confidence: float = 0.95
    recipe: str = ""
    task: str = ""
    image_size: int | None = None
    split_hash: str = ""
    batch: int = 1

    @property
    def verdicts(self) -> tuple[GateVerdict, ...]:
        """The verdicts, failures first, then what is not shown."""
        return sort_verdicts(self.gate)

    @property
    def by_target(self) -> dict[str, EngineRow]:
        """Target -> row, in the order of the rows."""
        return {row.target: row for row in self.rows}


def list_emulated(rows: Iterable[EngineRow]) -> dict[str, str]:
    """Return target -> what emulated it, of the rows that were emulated."""
    return {row.target: row.emulated_by for row in rows if row.emulated_by is not None}


def size_facts(rows: Iterable[EngineRow]) -> dict[str, str]:
    """Return target -> `` at 96 px`` where the rows' images differ in size, else nothing."""
    sizes = {row.target: row.image_size for row in rows}
    differ = len(set(sizes.values())) > 1
    return {name: f" at {size} px" if differ else "" for name, size in sizes.items()}


def list_fallbacks(rows: Iterable[EngineRow]) -> dict[str, list[str]]:
    """Return target -> what fell back, for the rows where anything did but emulation."""
    found = {row.target: row.describe_fallbacks() for row in rows if not row.emulated_by}
    return {target: sentences for target, sentences in found.items() if sentences}
