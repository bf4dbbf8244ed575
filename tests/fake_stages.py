"""Small stages for the tests of the store; importable, so that other processes can run them."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, ClassVar

from pydantic import Field

from lesiontk.records import Artefact
from lesiontk.stage import Context, Stage, StageConfig, StageInfo, StageOutput


class TextConfig(StageConfig):
    text: str = "a picture"
    path: str | None = Field(None, exclude=True)


class TextStage(Stage):
    """Writes a text and, beside the content, a log that differs from run to run.

    `during` is called before anything is written; `inputs` stand for files outside the workspace;
    `runs` counts how often the stage did its work.
    """

    info: ClassVar[StageInfo] = StageInfo(
        name="write_text",
        version=1,
        accepts={},
        produces="text",
        config=TextConfig,
        tools=("numpy",),
    )

    def __init__(self, during: Callable[[Context], None] | None = None) -> None:
        self.during = during or (lambda context: None)
        self.inputs: dict[str, str] = {}
        self.facts: dict[str, Any] = {}
        self.measured: dict[str, Any] = {}
        self.runs = 0

    def external_inputs(self, config: TextConfig) -> dict[str, str]:
        return self.inputs

    def run(
        self, parents: Mapping[str, Artefact], config: TextConfig, context: Context
    ) -> StageOutput:
        self.runs += 1
        (context.directory / "text.txt").write_text(config.text)
        self.during(context)
        (context.directory / "log").mkdir()
        (context.directory / "log" / "run.txt").write_text(f"{uuid.uuid4()} {self.runs}")
        facts = {"letters": len(config.text), **self.facts}
        return StageOutput(facts, auxiliary=("log",), measured=self.measured)


class TextStageOfVersion2(TextStage):
    info: ClassVar[StageInfo] = replace(TextStage.info, version=2)


class NoteStage(TextStage):
    """Produces another kind."""

    info: ClassVar[StageInfo] = replace(TextStage.info, name="write_note", produces="note")


class BudgetStage(TextStage):
    """The text is its budget: whatever it is, there is more to do."""

    def without_budget(self, config: TextConfig) -> TextConfig:
        return TextConfig()

    def run(
        self, parents: Mapping[str, Artefact], config: TextConfig, context: Context
    ) -> StageOutput:
        return replace(super().run(parents, config, context), unfinished=True)


class JoinConfig(StageConfig):
    between: str = " "


class JoinStage(Stage):
    """Joins the texts of its parents, in order of their roles."""

    info: ClassVar[StageInfo] = StageInfo(
        name="join",
        version=1,
        accepts={"first": "text", "rest": "text|joined"},
        produces="joined",
        config=JoinConfig,
    )

    def run(
        self, parents: Mapping[str, Artefact], config: JoinConfig, context: Context
    ) -> StageOutput:
        texts = [parents[role].file("text.txt").read_text() for role in sorted(parents)]
        (context.directory / "text.txt").write_text(config.between.join(texts))
        return StageOutput({"parts": len(texts)})
