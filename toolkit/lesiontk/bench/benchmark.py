"""A benchmark: interleaved timings of engines, each with its full-precision parent, and
verdicts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self, TypeVar

from lesiontk.backends.execution import Execution, name_emulator
from lesiontk.bench.layer_profile import LayerProfile
from lesiontk.bench.load import Load
from lesiontk.bench.peak import Peak
from lesiontk.bench.roofline import Work
from lesiontk.bench.timing import Latency, PathTiming, ScenarioTiming
from lesiontk.document import Record
from lesiontk.evaluate.bootstrap import Estimate
from lesiontk.evaluate.comparison import Comparison
from lesiontk.evaluate.evaluation import EngineEvaluation
from lesiontk.evaluate.operating_point import OperatingEvaluation
from lesiontk.evaluate.subgroups import SubgroupChange
from lesiontk.evaluate.temperature import TemperatureEvaluation
from lesiontk.evaluate.verdict import GateVerdict, Unresolved, sort_verdicts
from lesiontk.stage import EngineName, split_reference
from lesiontk.system.conditions import Conditions
from lesiontk.system.machine import Machine

FULL_PRECISION = "float32"


Value = TypeVar("Value")


@dataclass(frozen=True, slots=True, kw_only=True)
class ParentComparison(Comparison):
    """An engine against its full-precision `parent`, named by its target.

    `reference` is True if the parent is of the network before compression.
    `speedup` is the ratio of median latencies, above 1 if the engine is faster, with its interval
    at `confidence`; None if either was emulated. `size_ratio` is the parent's size over the
    engine's. `subgroups` are the changes by age, sex, site and brightness, where these are known.
    """

    DERIVED: ClassVar[tuple[str, ...]] = ("balanced_accuracy_delta",)

    parent: str
    reference: bool = False
    speedup: float | None
    size_ratio: float
    speedup_interval: tuple[float, float] | None = None
    subgroups: tuple[SubgroupChange, ...] = ()

    @classmethod
    def upgrade(cls, document: dict[str, Any]) -> dict[str, Any]:
        """Return the fields; earlier documents mark the parent's name as a reference."""
        return split_reference(document, "parent")

    @property
    def parent_name(self) -> EngineName:
        """The parent in the benchmark."""
        return EngineName(self.parent, reference=self.reference)

    @property
    def balanced_accuracy_delta(self) -> float | None:
        """The engine's balanced accuracy minus the parent's."""
        return self.differences["balanced_accuracy"].value


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineRow(Record):
    """One engine of a benchmark, by its `target` such as ``tflite:int8``.

    `reference` is True for an engine of the network before compression.
    `engine` is its artefact or file. Sizes and memory are in bytes, `image_size` in pixels a side.
    `latency_ms` is that of one image at a time on `threads` threads, `scenarios` has it with the
    others; `path` is the whole path from file to answer, `load` memory and time of loading,
    `work` its operations, `profile` the latency of its layers, if requested.
    `metrics` and the other results on the `n` test images are empty or None without labels,
    `latency_ms` without timing. `versus_parent` is None for an engine without a parent.
    """

    DERIVED: ClassVar[tuple[str, ...]] = ("emulated_by",)

    engine: str
    target: str
    reference: bool = False
    backend: str
    precision: str
    threads: int
    size_bytes: int
    latency_ms: Latency | None = None
    scenarios: tuple[ScenarioTiming, ...] = ()
    path: PathTiming | None = None
    load: Load | None = None
    work: Work | None = None
    profile: LayerProfile | None = None
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
        known = {"target": target, **document, "metrics": document.get("metrics") or {}}
        return split_reference(known, "target")

    def with_scores(self, found: EngineEvaluation) -> Self:
        """Return the row with an engine's results on labelled images."""
        return replace(
            self,
            n=found.n,
            lesions=found.lesions,
            metrics=found.metrics,
            confusion=found.confusion,
            operating_point=found.operating_point,
            temperature=found.temperature,
        )

    @property
    def key(self) -> EngineName:
        """Its name in the benchmark."""
        return EngineName(self.target, reference=self.reference)

    @property
    def emulated_by(self) -> str | None:
        """The runtime that emulated the engine's own; None without emulation.

        The scores of an emulated engine are those of its graph's arithmetic; its latency and memory
        are those of another program.
        """
        return name_emulator(self.execution)

    @property
    def name(self) -> str:
        """The key, with a mark if it was emulated."""
        return self.key + (" (emulated)" if self.emulated_by else "")

    @property
    def is_reduced(self) -> bool:
        """Whether it is of lower precision than the trained model, or compressed."""
        compressed = self.versus_parent is not None and self.versus_parent.reference
        return self.precision != FULL_PRECISION or (compressed and not self.reference)

    @property
    def has_own_parent(self) -> bool:
        """Whether its parent has the same runtime, so that speeds are comparable."""
        versus = self.versus_parent
        return versus is not None and versus.parent.partition(":")[0] == self.backend

    @property
    def latency(self) -> Latency:
        """The latency. Raises `ValueError` for an engine that was not timed."""
        return _known(self.latency_ms, self, "timed")

    @property
    def point(self) -> OperatingEvaluation:
        """The operating point. Raises `ValueError` for an engine that was not evaluated."""
        return _known(self.operating_point, self, "judged")

    @property
    def scaled(self) -> TemperatureEvaluation:
        """The temperature. Raises `ValueError` for an engine that was not evaluated."""
        return _known(self.temperature, self, "judged")

    def describe_fallbacks(self) -> list[str]:
        """Return a sentence for each fallback; empty if unknown."""
        return [part.describe() for part in self.execution if part.fell_back]


def _known(value: Value | None, row: EngineRow, how: str) -> Value:
    if value is None:
        raise ValueError(f"{row.key} was not {how}")
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceRow(Record):
    """The engine `target` as measured on another `device` by a bundle's runner.

    `energy_mj` is that of an inference above idle, if the device has power sensors. `agreement` is
    the share of golden images with the expected class. `accuracy` and `balanced_accuracy` are those
    of the `n` images that the device evaluated, if any.
    """

    device: str
    processor: str
    runtime: str
    target: str
    bundle_sha256: str
    threads: int
    latency_ms: Latency
    size_bytes: int
    peak_memory_bytes: int | None = None
    energy_mj: float | None = None
    agreement: float
    n: int | None = None
    accuracy: float | None = None
    balanced_accuracy: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark(Record):
    """Interleaved timings of engines on one `machine`, and the verdicts of the `gates`.

    `gates` are lines of the gate grammar, `gate` contains the verdict of each on each engine.
    `devices` are measurements of its engines elsewhere; they decide the gates on their figures.
    `labels` and the other facts of a recipe's test split are empty for files without labels.
    `conditions` are the machine's state before and after the timing, `peaks` its measured peak by
    threads; `energy_lacks` is why energy is not known, if it is not.
    Intervals are at level `confidence`. `findings` are sentences without their full stop, the most
    important first.
    """

    rows: tuple[EngineRow, ...]
    machine: Machine
    threads: int
    gates: tuple[str, ...] = ()
    gate: tuple[GateVerdict, ...] = ()
    unresolved: Unresolved = Unresolved.WARN
    findings: tuple[str, ...] = ()
    devices: tuple[DeviceRow, ...] = ()
    labels: tuple[str, ...] = ()
    critical: str = ""
    confidence: float = 0.95
    recipe: str = ""
    task: str = ""
    image_size: int | None = None
    split_hash: str = ""
    batch: int = 1
    conditions: tuple[Conditions, ...] = ()
    peaks: tuple[Peak, ...] = ()
    energy_lacks: str = ""

    SCHEMA: ClassVar[int] = 2

    @property
    def verdicts(self) -> tuple[GateVerdict, ...]:
        """The verdicts: failures first, then not shown."""
        return sort_verdicts(self.gate)

    @property
    def by_target(self) -> dict[EngineName, EngineRow]:
        """Engine -> row, in the order of the rows."""
        return {row.key: row for row in self.rows}


def list_emulated(rows: Iterable[EngineRow]) -> dict[str, str]:
    """Return target -> its emulator, for the emulated rows."""
    return {row.key: row.emulated_by for row in rows if row.emulated_by is not None}


def size_facts(rows: Iterable[EngineRow]) -> dict[str, str]:
    """Return target -> `` at 96 px`` if the rows' images differ in size, else empty texts."""
    sizes = {row.key: row.image_size for row in rows}
    differ = len(set(sizes.values())) > 1
    return {name: f" at {size} px" if differ else "" for name, size in sizes.items()}


def list_fallbacks(rows: Iterable[EngineRow]) -> dict[str, list[str]]:
    """Return target -> its fallbacks other than emulation, for the rows with any."""
    found = {row.key: row.describe_fallbacks() for row in rows if not row.emulated_by}
    return {target: sentences for target, sentences in found.items() if sentences}
