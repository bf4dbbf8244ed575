"""A cross-validation: the results of a recipe over all folds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lesiontk.api.findings import Findings, estimate_columns, table_of

if TYPE_CHECKING:
    import pandas as pd

    from lesiontk.evaluate.cross_validation import CrossValidation as Record
    from lesiontk.records import Artefact


class CrossValidation(Findings):
    """A cross-validation; `record` contains every figure by name, `artefact` is in the workspace.

    For example, on HAM10000::

        result = ws.cross_validate("cnn_7class", folds=5, data="HAM10000")
        result.to_pandas().query("metric == 'balanced_accuracy'")
    """

    def __init__(self, artefact: Artefact) -> None:
        from lesiontk.stages.cross_validate import read_cross_validation

        self.artefact = artefact
        self.record: Record = read_cross_validation(artefact)

    @property
    def caption(self) -> str:
        """What was tested."""
        found = self.record
        return (
            f"{found.recipe}, {len(found.folds)} folds: {found.images} images of {found.lesions} "
            "lesions, each tested once"
        )

    @property
    def report(self) -> Path:
        """The HTML page."""
        from lesiontk.stages.cross_validate import PAGE

        return self.artefact.file(PAGE)

    @property
    def predictions(self) -> Path:
        """The CSV with a row per engine and image: fold, label and probabilities."""
        from lesiontk.stages.cross_validate import PREDICTIONS

        return self.artefact.file(PREDICTIONS)

    def to_pandas(self) -> pd.DataFrame:
        """Return a row for each engine and metric.

        Columns: engine, metric, pooled and procedure with ``_low`` and ``_high``, deviation between
        folds, parent, difference with ``_low`` and ``_high``.
        """
        rows = []
        for engine in self.record.engines:
            versus = engine.versus_parent
            for name, metric in engine.metrics.items():
                change = versus and versus.differences.get(name)
                rows.append(
                    {
                        "engine": engine.key,
                        "metric": name,
                        **estimate_columns("pooled", metric.pooled),
                        **estimate_columns("procedure", metric.procedure),
                        "deviation": metric.deviation,
                        "parent": versus and versus.parent_key,
                        **estimate_columns("difference", change.pooled if change else None),
                    }
                )
        return table_of(rows)
