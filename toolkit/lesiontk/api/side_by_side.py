"""Two benchmarks side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lesiontk.api.findings import Findings, estimate_columns, table_of

if TYPE_CHECKING:
    import pandas as pd

    from lesiontk.bench.side_by_side import SideBySide as Record


class SideBySide(Findings):
    """Two benchmarks, a and b, by engine; differences are b - a, with intervals over lesions.

    The table has a row for each engine and metric: a, b and difference, each with ``_low`` and
    ``_high``. `record` also has latency and size.
    """

    record: Record

    def __init__(self, record: Record) -> None:
        self.record = record

    @property
    def caption(self) -> str:
        """The result in a sentence, and how the two were compared."""
        from lesiontk.report.side_by_side import describe_verdict

        return f"{describe_verdict(self.record)} {self.record.reason}"

    def to_pandas(self) -> pd.DataFrame:
        """Return a row for each engine and metric."""
        return table_of(
            [
                {
                    "engine": pair.engine,
                    "metric": metric,
                    **estimate_columns("a", pair.a.scores[metric]),
                    **estimate_columns("b", pair.b.scores.get(metric)),
                    **estimate_columns("difference", pair.differences.get(metric)),
                }
                for pair in self.record.engines
                for metric in pair.a.scores
            ]
        )

    def write(self, path: str | Path) -> None:
        """Write the comparison to a file that ends in ``.html``, ``.md`` or ``.json``."""
        from lesiontk.report.side_by_side import write_comparison

        write_comparison(self.record, Path(path))
