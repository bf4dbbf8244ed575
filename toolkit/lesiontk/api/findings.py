"""What a measurement returns: its document, a table of it, and how a notebook shows it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    import pandas as pd

    from lesiontk.evaluate.bootstrap import Estimate
    from lesiontk.evaluate.verdict import GateVerdict

Formats = Mapping[str, Callable[[Any], str]]
"""Column -> how a notebook shows a value of it."""


class Findings(ABC):
    """A result to read, in a table and in a notebook."""

    formats: ClassVar[Formats] = {}

    @property
    @abstractmethod
    def document(self) -> Mapping[str, Any]:
        """What the command prints with ``--json``."""

    @property
    @abstractmethod
    def caption(self) -> str:
        """What the table holds, in a line."""

    @abstractmethod
    def to_pandas(self) -> pd.DataFrame:
        """Return the result as a table; values keep their units and are not rounded."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.caption}>"

    def _show_rows(self) -> str:
        return show_table(self.to_pandas(), self.caption, self.formats)

    def _repr_html_(self) -> str:
        return self._show_rows()


class PlainFindings(Findings):
    """A result whose document is all that there is."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._document = document

    @property
    def document(self) -> Mapping[str, Any]:
        """What the command prints with ``--json``."""
        return self._document


class GatedFindings(Findings):
    """A result that gates judged."""

    unresolved: str = "warn"
    """What becomes of a gate that is not shown: ``warn`` or ``fail``."""

    @property
    @abstractmethod
    def verdicts(self) -> tuple[GateVerdict, ...]:
        """The gates' verdicts, failures first; empty where no gate judged."""

    def check_gates(self, *, unresolved: str | None = None) -> None:
        """Raise `GateFailedError` unless every gate passed.

        A gate that is not shown is a warning in the log with ``unresolved="warn"`` and a failure
        with ``"fail"``; default: as the recipe has it.
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
    """Return a format of numbers with so many decimals; a dash for what is missing."""
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
