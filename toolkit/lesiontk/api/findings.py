"""The results of measurements: their document, a table, and their display in a notebook."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    import pandas as pd

    from lesiontk.document import Record
    from lesiontk.evaluate.bootstrap import Estimate
    from lesiontk.evaluate.verdict import GateVerdict

Formats = Mapping[str, Callable[[Any], str]]
"""Column -> the format of its values in a notebook."""


class Findings(ABC):
    """A result with a table and a display in a notebook; `record` has every value by name."""

    formats: ClassVar[Formats] = {}
    record: Record

    @property
    def document(self) -> Mapping[str, Any]:
        """The document of the command with ``--json``."""
        return self.record.to_document()

    @property
    @abstractmethod
    def caption(self) -> str:
        """The caption of the table."""

    @abstractmethod
    def to_pandas(self) -> pd.DataFrame:
        """Return the result as a table; values keep their units and are not rounded."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.caption}>"

    def _show_rows(self) -> str:
        return show_table(self.to_pandas(), self.caption, self.formats)

    def _repr_html_(self) -> str:
        return self._show_rows()


class GatedFindings(Findings):
    """A result with verdicts of gates."""

    unresolved: str = "warn"
    """The effect of a gate that is not shown: ``warn`` or ``fail``."""

    @property
    @abstractmethod
    def verdicts(self) -> tuple[GateVerdict, ...]:
        """The gates' verdicts, failures first; empty without gates."""

    def check_gates(self, *, unresolved: str | None = None) -> None:
        """Raise `GateFailedError` unless every gate passed.

        A gate that is not shown is a warning in the log with ``unresolved="warn"`` and a failure
        with ``"fail"``; default: that of the recipe.
        """
        from lesiontk.bench.judging import require_gates
        from lesiontk.evaluate.verdict import Unresolved

        require_gates(self.verdicts, Unresolved(unresolved or self.unresolved))

    def _repr_html_(self) -> str:
        table = super()._repr_html_()
        if not self.verdicts:
            return table
        lines = "".join(f"<li>{escape(verdict.describe())}</li>" for verdict in self.verdicts)
        return f"{table}<p>Gates:</p><ul>{lines}</ul>"


def show_table(table: pd.DataFrame, caption: str = "", formats: Formats | None = None) -> str:
    """Return a table as HTML, with every text escaped."""
    chosen = {name: show for name, show in (formats or {}).items() if name in table.columns}
    body = table.to_html(index=False, border=0, na_rep="–", formatters=chosen or None)
    return f"<p>{escape(caption)}</p>{body}" if caption else str(body)


def number(digits: int, unit: str = "") -> Callable[[Any], str]:
    """Return a format of numbers with `digits` decimals, and a dash for missing values."""
    return lambda value: "–" if value is None or value != value else f"{value:.{digits}f}{unit}"


def estimate_columns(name: str, estimate: Estimate | None) -> dict[str, float | None]:
    """Return a value and its interval as three columns: NAME, NAME_low, NAME_high."""
    return {
        name: estimate.value if estimate else None,
        f"{name}_low": estimate.low if estimate else None,
        f"{name}_high": estimate.high if estimate else None,
    }


def table_of(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Return rows as a table."""
    import pandas as pd

    return pd.DataFrame(list(rows))
