"""The results of a run, from model to report."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from lesiontk.api.benchmark import Benchmark
from lesiontk.api.engines import Engines
from lesiontk.api.model import Model
from lesiontk.api.report import Report
from lesiontk.records import Artefact
from lesiontk.stage import collect_roles

if TYPE_CHECKING:
    from lesiontk.api.workspace import Workspace


class Run:
    """The results of a recipe; `artefacts` contains all of them by step."""

    def __init__(self, workspace: Workspace, artefacts: Mapping[str, Artefact]) -> None:
        self.workspace = workspace
        self.artefacts = dict(artefacts)

    @property
    def model(self) -> Model:
        """The recipe's model, after its last compression."""
        return Model(self.workspace, self._of_kind("model")[-1])

    @property
    def engines(self) -> Engines:
        """The model's engines."""
        made = {artefact.name for artefact in self._of_kind("engine")}
        return Engines(
            {t: engine for t, engine in self.model.engines.items() if engine.name in made}
        )

    @property
    def benchmark(self) -> Benchmark:
        """The benchmark of the engines; `Benchmark.check_gates` raises if a gate failed."""
        from lesiontk.stages.bench import read_benchmark

        artefact = self._of_kind("benchmark")[-1]
        return Benchmark(read_benchmark(artefact), artefact)

    @property
    def report(self) -> Report:
        """The HTML report."""
        return Report(self.workspace, self._of_kind("report")[-1])

    @property
    def bundles(self) -> dict[str, Path]:
        """Device -> its bundle."""
        return {device: a.path for device, a in collect_roles(self.artefacts, "bundle").items()}

    def _of_kind(self, kind: str) -> list[Artefact]:
        return [artefact for artefact in self.artefacts.values() if artefact.kind == kind]

    def _repr_html_(self) -> str:
        return self.benchmark._repr_html_()
