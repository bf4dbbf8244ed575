"""A benchmark: latency, size, memory and accuracy of engines against their parent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lesiontk.api.findings import GatedFindings, estimate_columns, show_table, table_of
from lesiontk.report.formatting import format_bytes

if TYPE_CHECKING:
    import pandas as pd

    from lesiontk.bench.benchmark import Benchmark as Record
    from lesiontk.evaluate.verdict import GateVerdict
    from lesiontk.records import Artefact

METRICS = ("balanced_accuracy", "macro_auc")


class Benchmark(GatedFindings):
    """A benchmark with one row per engine; `record` contains every figure by name.

    `artefact` is its artefact in the workspace, None for engine files.

    >>> bench = ws.bench(engine)
    >>> list(bench.to_pandas()["engine"])
    ['keras:float32', 'tflite:float32', 'tflite:int8']
    """

    def __init__(self, record: Record, artefact: Artefact | None = None) -> None:
        self.record: Record = record
        self.unresolved = str(record.unresolved)
        self.artefact = artefact

    @property
    def verdicts(self) -> tuple[GateVerdict, ...]:
        """The gates' verdicts, failures first; empty without gates."""
        return self.record.verdicts

    @property
    def findings(self) -> tuple[str, ...]:
        """The findings as sentences."""
        return self.record.findings

    @property
    def caption(self) -> str:
        """The conditions of the latency measurement."""
        counts = {row.latency_ms.n for row in self.record.rows if row.latency_ms}
        n = ", ".join(map(str, sorted(counts)))
        return f"one image at a time, {self.record.threads} thread(s), n = {n} for each engine"

    def to_pandas(self) -> pd.DataFrame:
        """Return a row for each engine.

        Columns: engine, median_ms, p90_ms, size_bytes, peak_memory_bytes, balanced_accuracy and
        macro_auc with ``_low`` and ``_high``, parent, speedup and size_ratio (of the parent),
        emulated_by. Latency and memory are missing for emulated engines.
        """
        rows = []
        for row in self.record.rows:
            versus, latency = row.versus_parent, None if row.emulated_by else row.latency_ms
            estimates: dict[str, float | None] = {}
            for name in METRICS:
                estimates |= estimate_columns(name, row.metrics.get(name))
            rows.append(
                {
                    "engine": row.key,
                    "median_ms": latency and latency.median,
                    "p90_ms": latency and latency.p90,
                    "size_bytes": row.size_bytes,
                    "peak_memory_bytes": None if row.emulated_by else row.peak_memory_bytes,
                    **estimates,
                    "parent": versus and versus.parent_name,
                    "speedup": versus and versus.speedup,
                    "size_ratio": versus and versus.size_ratio,
                    "emulated_by": row.emulated_by,
                }
            )
        return table_of(rows)

    def _show_rows(self) -> str:
        """Return the formatted table: intervals after their values, units in each cell."""
        from lesiontk.report.result_table import format_estimate, format_ms, format_speedup

        rows = []
        for row in self.record.rows:
            versus, latency = row.versus_parent, None if row.emulated_by else row.latency_ms
            rows.append(
                {
                    "engine": row.name,
                    "median ms": format_ms(latency.median if latency else None),
                    "p90 ms": format_ms(latency.p90 if latency else None),
                    "size": format_bytes(row.size_bytes),
                    **{
                        name.replace("_", " "): format_estimate(
                            row.metrics.get(name), interval="({}–{})"
                        )
                        for name in METRICS
                    },
                    "faster": format_speedup(row, interval="({}–{})"),
                    "smaller": f"{versus.size_ratio:.2f}×" if versus else "–",
                }
            )
        return show_table(table_of(rows), self.caption)
