"""A search whose stages sleep instead of working; importable, so that workers of Ray can run it.

Its trials have a shared step, one of their own, a validation and a timing, as real ones have.
"""

from __future__ import annotations

import csv
import os
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from lesiontk import __version__
from lesiontk.bench.timing import Latency
from lesiontk.errors import GateFailedError
from lesiontk.recipe import Recipe
from lesiontk.records import Artefact
from lesiontk.search.result import SearchTask
from lesiontk.search.space import SearchSpace, parse_space
from lesiontk.search.trial_record import Assignment
from lesiontk.stage import (
    MEASURING,
    TRAINING,
    Context,
    Needs,
    Stage,
    StageConfig,
    StageInfo,
    StageOutput,
    StepId,
)
from lesiontk.stages import STAGES
from lesiontk.stages.evaluate import VALIDATION_PREDICTIONS
from lesiontk.stages.time_engine import EngineTiming
from lesiontk.store import Store
from lesiontk.workflow.search import Search, open_study_of
from lesiontk.workflow.search_candidates import Candidates, SearchOptions
from lesiontk.workflow.steps import Plan, Step

ENGINE = StepId("engine", "tflite:int8")
LABELS = ("mel", "nv")


class StubConfig(StageConfig):
    """`value` makes artefacts differ; `log` gets a line at each begin and end of a stage.

    `fails` is ``verify`` for an error, ``bug`` for another one, ``dies`` for a killed process.
    """

    value: int = 0
    seconds: float = Field(0.0, exclude=True)
    epochs: int = 0
    log: str = Field("", exclude=True)
    fails: str = Field("", exclude=True)


class StubStage(Stage):
    """Sleeps, and writes its value."""

    def run(
        self, parents: Mapping[str, Artefact], config: StubConfig, context: Context
    ) -> StageOutput:
        note(config, self.info.name, "begin")
        for epoch in range(1, config.epochs + 1):
            if context.on_epoch is not None:
                context.on_epoch(epoch, {"balanced_accuracy": config.value / 10})
        time.sleep(config.seconds)
        if config.fails == "verify":
            raise GateFailedError("it does not match its model.")
        if config.fails == "bug":
            raise ZeroDivisionError
        if config.fails == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        (context.directory / "value.txt").write_text(str(config.value))
        found = self.finish(parents, config, context)
        note(config, self.info.name, "end")
        return found

    def finish(
        self, parents: Mapping[str, Artefact], config: StubConfig, context: Context
    ) -> StageOutput:
        return StageOutput({"value": config.value})


class StubTrainStage(StubStage):
    info: ClassVar[StageInfo] = StageInfo(
        name="stub_train", version=1, accepts={}, produces="model", config=StubConfig,
        needs=TRAINING,
    )  # fmt: skip


class StubConvertStage(StubStage):
    info: ClassVar[StageInfo] = StageInfo(
        name="stub_convert", version=1, accepts={"source": "model"}, produces="engine",
        config=StubConfig, needs=Needs(),
    )  # fmt: skip


class StubValidateStage(StubStage):
    info: ClassVar[StageInfo] = StageInfo(
        name="stub_validate", version=1, accepts={"engine": "engine"}, produces="validation",
        config=StubConfig,
    )  # fmt: skip

    def finish(
        self, parents: Mapping[str, Artefact], config: StubConfig, context: Context
    ) -> StageOutput:
        rng = np.random.default_rng(int(parents["engine"].file("value.txt").read_text()))
        with (context.directory / VALIDATION_PREDICTIONS).open("w", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(["image_id", "group", "label", *(f"p_{name}" for name in LABELS)])
            for row in range(40):
                chance = float(np.clip(rng.normal(0.7 if row % 2 else 0.3, 0.3), 0.01, 0.99))
                writer.writerow([f"i{row}", f"l{row}", LABELS[row % 2], 1 - chance, chance])
        return StageOutput({})


class StubTimeStage(StubStage):
    info: ClassVar[StageInfo] = StageInfo(
        name="stub_time", version=1, accepts={"engine": "engine"}, produces="timing",
        config=StubConfig, needs=MEASURING,
    )  # fmt: skip

    def finish(
        self, parents: Mapping[str, Artefact], config: StubConfig, context: Context
    ) -> StageOutput:
        value = int(parents["engine"].file("value.txt").read_text())
        timing = EngineTiming(
            target=ENGINE.target, threads=1, size_bytes=10**6 + value,
            latency_ms=Latency(1.0 + value % 7, 2.0 + value % 7, 99), deflated_bytes=10**6,
            peak_memory_bytes=10**7,
        )  # fmt: skip
        return StageOutput({}, measured=timing.to_document())


for _stage in (StubTrainStage, StubConvertStage, StubValidateStage, StubTimeStage):
    STAGES.register(_stage.info.name, f"{__name__}:{_stage.__name__}")


def note(config: StubConfig, stage: str, what: str) -> None:
    """Add a line to the log: process, stage, value, ``begin`` or ``end``."""
    if config.log:
        with Path(config.log).open("a") as stream:
            stream.write(f"{os.getpid()} {stage} {config.value} {what}\n")


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the log; `what` is ``begin`` or ``end``."""

    pid: int
    stage: str
    value: int
    what: str


def read_log(path: Path) -> list[Line]:
    """Return the lines of the log, in their order."""
    rows = [line.split() for line in path.read_text().splitlines()] if path.is_file() else []
    return [Line(int(pid), stage, int(value), what) for pid, stage, value, what in rows]


class StubCandidates(Candidates):
    """Candidates whose plans are of the stages above: ``train.seed`` is of the shared step."""

    seconds: float = 0.0
    log: str = ""
    fails: Mapping[int, str]

    def plan_of(self, chosen: Assignment) -> Plan:
        """Return the plan of a candidate."""
        seed = int(chosen["train.seed"])
        own = 100 * seed + int(chosen.get("train.patience", 0))
        fails = self.fails.get(own, "")
        pruned = self.space.pruner != "none"
        return stub_plan(seed, own, self.seconds, self.log, epochs=3 * pruned, fails=fails)


def stub_plan(
    seed: int, own: int, seconds: float, log: str, *, epochs: int = 0, fails: str = ""
) -> Plan:
    """Return a plan of a shared step, one of its own that may fail, its validation and timing."""

    def config(value: int, seconds: float = 0.0, **more: Any) -> StubConfig:
        return StubConfig(value=value, seconds=seconds, log=log, **more)

    model = StepId("model")
    return Plan(
        Recipe(name="stub", description="Sleeps."),
        (
            Step(model, "stub_train", config(seed, seconds, epochs=epochs)),
            Step(ENGINE, "stub_convert", config(own, seconds, fails=fails), {"source": model}),
            Step(ENGINE.of_kind("validation"), "stub_validate", config(0), {"engine": ENGINE}),
            Step(ENGINE.of_kind("timing"), "stub_time", config(0), {"engine": ENGINE}),
        ),
    )


def make_space(**changes: Any) -> SearchSpace:
    """Return a grid of 24 candidates, four for each of six shared steps."""
    return parse_space(
        {
            "vary": {"train.seed": list(range(6)), "train.patience": [1, 2, 3, 4]},
            "objectives": ["balanced_accuracy", "p90_ms"],
            "sampler": "grid",
            **changes,
        }
    )


def stub_search(
    store: Store,
    space: SearchSpace,
    *,
    seconds: float = 0.0,
    log: Path | None = None,
    fails: Mapping[int, str] | None = None,
    storage: str | None = None,
) -> Search:
    """Return a search that is ready to run; `fails` is of the values of engines."""
    task = SearchTask("pair", LABELS, LABELS[:1])
    search = Search(store, space, SearchOptions("stub", storage=storage), task, "youden")
    candidates = StubCandidates(store, space, search.options, search.criteria)
    candidates.seconds, candidates.log = seconds, str(log or "")
    candidates.fails = fails or {}
    search.candidates = candidates
    open_study_of(search, epochs=3)
    return search


def sees_no_workspace(mark: Path) -> tuple[str, bool]:
    """Answer as a machine that does not have the folder of the workspace."""
    return __version__, False
