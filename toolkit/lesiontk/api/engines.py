"""The engines of a model, by target."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from lesiontk.api.engine import Engine
from lesiontk.api.findings import number, show_table, table_of
from lesiontk.errors import LesionTKError, UsageError, suggest
from lesiontk.report.formatting import format_bytes

if TYPE_CHECKING:
    import pandas as pd


class UnknownEngineError(UsageError, KeyError):
    """A target without an engine."""


class Engines(Mapping[str, Engine]):
    """Target -> engine, as ``engines["tflite:int8"]``.

    `refused` maps a target to the error that prevented its engine.
    """

    def __init__(
        self,
        engines: Mapping[str, Engine],
        refused: Mapping[str, LesionTKError] | None = None,
    ) -> None:
        self._engines = dict(engines)
        self.refused = dict(refused or {})

    def __getitem__(self, target: str) -> Engine:
        if target not in self._engines:
            known = ", ".join(self._engines) or "none"
            why = f" It was refused: {self.refused[target]}" if target in self.refused else ""
            raise UnknownEngineError(
                f"no engine {target!r} here; there is {known}."
                f"{why or suggest(target, self._engines)}"
            )
        return self._engines[target]

    def __iter__(self) -> Iterator[str]:
        return iter(self._engines)

    def __len__(self) -> int:
        return len(self._engines)

    def to_pandas(self) -> pd.DataFrame:
        """Return a row for each engine: its size, and its agreement with its model."""
        rows = []
        for target, engine in self.items():
            agreement = engine.record.verification.agreement
            rows.append(
                {
                    "engine": target,
                    "name": engine.name,
                    "size_bytes": engine.file.stat().st_size,
                    "top1_agreement": agreement and agreement.top1_agreement,
                    "mean_drift": agreement and agreement.mean_absolute_drift,
                    "n": agreement and agreement.n,
                }
            )
        return table_of(rows)

    def __repr__(self) -> str:
        return f"<Engines {', '.join(self._engines) or 'none'}>"

    def _repr_html_(self) -> str:
        formats = {
            "size_bytes": format_bytes, "top1_agreement": number(3), "mean_drift": number(4)
        }  # fmt: skip
        refused = "; ".join(f"{target} was not made: {e}" for target, e in self.refused.items())
        return show_table(self.to_pandas(), refused, formats)
