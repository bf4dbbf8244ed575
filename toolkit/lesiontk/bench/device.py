"""Measurements that a bundle's runner took on a device: ``run.py bench --json``."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lesiontk.bench.benchmark import DeviceRow
from lesiontk.bench.timing import Latency
from lesiontk.document import Record
from lesiontk.errors import DataError, UsageError
from lesiontk.evaluate.device_gate import DeviceFigures

NAME = re.compile(r"[\w .,()+/@:-]{1,80}")
FORMAT = 1
"""The version of the runner's document."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceBench(Record):
    """The raw latencies in ms of an engine on a `device`, with what ran it.

    `target` is the engine in the benchmark, `content_sha256` the hash of its file without the
    evaluation that it carries. `energy_mj` is that of an inference above idle, if the device has
    power sensors. `agreement` is the share of golden images with the expected class. `accuracy` and
    `balanced_accuracy` are those of the `n` images that the device evaluated, if any.
    """

    device: str
    processor: str
    runtime: str
    target: str = ""
    content_sha256: str
    bundle_sha256: str
    threads: int
    samples_ms: tuple[float, ...]
    size_bytes: int
    peak_memory_bytes: int | None = None
    energy_mj: float | None = None
    agreement: float
    n: int | None = None
    accuracy: float | None = None
    balanced_accuracy: float | None = None

    @property
    def latency_ms(self) -> Latency:
        """The percentiles of the samples."""
        return Latency.of(self.samples_ms)

    def to_row(self) -> DeviceRow:
        """Return the row of a benchmark: the percentiles in the place of the samples."""
        values = self.field_values()
        for name in ("samples_ms", "content_sha256"):
            del values[name]
        return DeviceRow(**values, latency_ms=self.latency_ms)

    def figures(self) -> DeviceFigures:
        """Return the input of gates on latency, size and memory."""
        return DeviceFigures(
            [[value] for value in self.samples_ms],
            self.size_bytes,
            self.peak_memory_bytes,
            device=self.device,
        )


def read_device_bench(path: Path) -> DeviceBench:
    """Return a device's measurements. Raises `DataError` for a file that has none.

    Refused are measurements of a device whose outputs were not as expected.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be read: {error}; expected {EXPECTED}.") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise DataError(f"{path} is no measurement of a device; expected {EXPECTED}.")
    try:
        fields = _fields_of(document)
    except (KeyError, TypeError) as error:
        raise DataError(f"{path} has no {error}; expected {EXPECTED}.") from error
    found = DeviceBench.from_document(fields)
    if not NAME.fullmatch(found.device):
        raise DataError(
            f"{path}: the device is called {found.device[:100]!r}; expected up to 80 letters, "
            "digits, spaces and . , ( ) + / @ : - (`run.py bench --device NAME`)."
        )
    if not found.samples_ms or not all(0 < value < float("inf") for value in found.samples_ms):
        raise DataError(f"{path}: latencies are missing or not positive; measure again.")
    if document["answers"].get("as_expected") is not True:
        raise DataError(
            f"{path}: the outputs of {found.device} were not as expected (agreement "
            f"{found.agreement:.3f}); `run.py self-test` there shows the differences."
        )
    return found


EXPECTED = "the output of a bundle's `run.py bench --json`"


def _fields_of(document: Mapping[str, Any]) -> dict[str, Any]:
    evaluation = document["evaluation"] or {}
    scores = evaluation.get("scores") or {}
    runtime = document["runtime"]
    return {
        "device": document["device"],
        "processor": document["machine"]["processor"],
        "runtime": f"{runtime['runtime']} {runtime['version']}",
        "content_sha256": document["engine"]["content_sha256"],
        "bundle_sha256": document["bundle_sha256"],
        "threads": document["threads"],
        "samples_ms": document["latency_ms"]["samples"],
        "size_bytes": document["engine_bytes"],
        "peak_memory_bytes": document["peak_memory_bytes"],
        "energy_mj": (document.get("energy") or {}).get("per_inference_mj"),
        "agreement": document["answers"]["agreement"],
        "n": evaluation.get("n"),
        "accuracy": scores["accuracy"]["value"] if scores else None,
        "balanced_accuracy": scores.get("balanced_accuracy"),
    }


def index_devices(devices: Iterable[DeviceBench]) -> dict[str, DeviceBench]:
    """Return target -> its device. Raises `UsageError` for two measurements of an engine."""
    found: dict[str, DeviceBench] = {}
    for each in devices:
        other = found.setdefault(each.target, each)
        if other is not each:
            raise UsageError(
                f"received two measurements of {each.target}, on {other.device} and {each.device}; "
                "expected one, which decides the gates."
            )
    return found
