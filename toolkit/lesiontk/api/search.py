"""A search in a workspace: its trials, its front and its best engine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lesiontk.api.engine import Engine
from lesiontk.api.findings import Findings, number, table_of
from lesiontk.search.result import SearchResult, find_best

if TYPE_CHECKING:
    import pandas as pd

    from lesiontk.api.workspace import Workspace
    from lesiontk.search.trial_record import TrialRecord


class Search(Findings):
    """A search of engines; `record` contains every trial and figure by name.

    For example, on HAM10000::

        search = ws.search("space.yaml", data="HAM10000")
        search.best(under="p90_ms <= 5").bundle("linux-arm64")
    """

    record: SearchResult
    formats = {"p90_ms": number(2), "size_mb": number(2)}  # noqa: RUF012 - as in the base

    def __init__(self, workspace: Workspace, record: SearchResult, page: Path) -> None:
        self.workspace = workspace
        self.record = record
        self.page = page

    @property
    def caption(self) -> str:
        """What was compared."""
        from lesiontk.report.search_words import describe_search

        return describe_search(self.record)

    @property
    def front(self) -> tuple[Engine, ...]:
        """The engines that meet all constraints and that no other dominates, the best first."""
        names = [self.record.figures(trial).engine for trial in self.record.front]
        return tuple(self.workspace.engine(name) for name in names)

    def best(self, under: str | Sequence[str] = ()) -> Engine:
        """Return the engine that is the best in the first objective on validation.

        It meets the constraints of the search and those of `under`, such as ``p90_ms <= 5``. Raises
        `UsageError` if none does, with the nearest.
        """
        trial = self.find(under)
        return self.workspace.engine(self.record.figures(trial.number).engine)

    def find(self, under: str | Sequence[str] = ()) -> TrialRecord:
        """Return the trial of that engine, with its values and figures."""
        return find_best(self.record, (under,) if isinstance(under, str) else tuple(under))

    @property
    def measured(self) -> tuple[str, ...]:
        """The names of the figures that the search is about, objectives first."""
        return self.record.figure_names

    def to_pandas(self) -> pd.DataFrame:
        """Return a row for each trial, in their order.

        Columns: trial, state, on_front, engine, each key that varies, each objective and figure of
        a constraint on validation, noise of the latency, reason. Missing values are None.
        """
        record = self.record
        rows = []
        for trial in record.trials:
            known = trial.figures
            rows.append(
                {
                    "trial": trial.number,
                    "state": trial.state,
                    "on_front": trial.number in record.front,
                    "engine": known and known.engine,
                    **{key: trial.assignment.get(key) for key in record.varied},
                    **{name: known and known.values.get(name) for name in self.measured},
                    "noise": known and "; ".join(known.noise),
                    "reason": trial.reason or "; ".join(v.constraint for v in trial.violations),
                }
            )
        return table_of(rows)
