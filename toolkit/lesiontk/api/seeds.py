"""A comparison of trainings that differ in their seed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lesiontk.api.findings import Findings, table_of
from lesiontk.api.model import Model
from lesiontk.records import Artefact
from lesiontk.stages.compare_seeds import read_seeds

if TYPE_CHECKING:
    import pandas as pd

    from lesiontk.api.workspace import Workspace
    from lesiontk.evaluate.seeds import SeedComparison as Record


class SeedComparison(Findings):
    """Trainings with several seeds; `record` contains every figure by name.

    For example, on HAM10000::

        seeds = ws.compare_seeds("cnn_7class", seeds=3, data="HAM10000")
        seeds.record.spread["balanced_accuracy"].deviation
        engines = seeds.best.quantize()
    """

    def __init__(self, workspace: Workspace, artefact: Artefact) -> None:
        self.workspace, self.artefact = workspace, artefact
        self.record: Record = read_seeds(artefact)

    @property
    def best(self) -> Model:
        """The model with the highest balanced accuracy on validation."""
        found = next(r for r in self.record.results if r.seed == self.record.best)
        return self.workspace.model(found.model)

    @property
    def caption(self) -> str:
        """What was compared."""
        found = self.record
        return f"{found.recipe}, {len(found.results)} seeds, validation n = {found.n}"

    def to_pandas(self) -> pd.DataFrame:
        """Return a row for each training: seed, model, best_epoch, and its validation metrics."""
        return table_of(
            [
                {"seed": r.seed, "model": r.model, "best_epoch": r.best_epoch, **r.metrics}
                for r in self.record.results
            ]
        )
