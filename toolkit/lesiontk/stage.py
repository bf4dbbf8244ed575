"""A stage: a function from parent artefacts and a validated config to a new artefact."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict

from lesiontk.progress import NoProgress, Progress
from lesiontk.records import Artefact
from lesiontk.system.cores import count_cores

T = TypeVar("T")


class StageConfig(BaseModel):
    """Base of every config: unknown keys are errors, values never change after validation.

    A field with ``exclude=True`` (a path on this machine, say) stays outside the artefact's key.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    def refuse_idle(self, *names: str, belongs_to: str) -> None:
        """Raise `ValueError` if one of these keys, which do nothing here, was set all the same."""
        for name in names:
            if name in self.model_fields_set:
                raise ValueError(f"{name} belongs to {belongs_to} and would do nothing: drop it")


class StepId(str):
    """The name of a step: the kind of what it makes, of which target, in which variant.

    It is a text where names are written, ``engine:tflite:int8@trained``, and also the role of what
    the step makes for a stage that takes several of a kind. Its parts are fields: nothing parses
    it. `of` is the target with its variant, ``tflite:int8@trained``.
    """

    kind: str
    target: str
    variant: str
    of: str

    def __new__(cls, kind: str, target: str = "", variant: str = "") -> StepId:
        """Return the name of these parts; `target` and `variant` may be empty."""
        of = f"{target}@{variant}" if variant else target
        name = super().__new__(cls, f"{kind}:{of}" if of else kind)
        name.kind, name.target, name.variant, name.of = kind, target, variant, of
        return name

    def of_kind(self, kind: str) -> StepId:
        """Return the name of another kind, of the same target and variant."""
        return StepId(kind, self.target, self.variant)


REFERENCE = "trained"
"""The variant of an engine of the network as it was trained, beside which others are judged."""


def collect_roles(parents: Mapping[str, T], kind: str) -> dict[str, T]:
    """Return `StepId.of` -> parent, of those whose role is of this kind."""
    return {
        role.of: parent
        for role, parent in parents.items()
        if isinstance(role, StepId) and role.kind == kind
    }


@dataclass(frozen=True, slots=True)
class StageInfo:
    """What the plan check, the store and the command line need to know of a stage.

    `accepts` maps each parent's role to the artefact kind it must be (``a|b`` for either); a role
    that several parents have is written ``role:which``. `tools` are the distributions whose version
    is part of every key; `Stage.list_tools` adds those that depend on config and parents.
    """

    name: str
    version: int
    accepts: Mapping[str, str]
    produces: str
    config: type[StageConfig]
    tools: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Context:
    """Where a stage writes and how it reports.

    `directory` becomes the artefact. `scratch` outlives a killed process (checkpoints) and is
    removed on success.
    """

    directory: Path
    scratch: Path
    recipe: str = ""
    progress: Progress = field(default_factory=NoProgress)
    threads: int = field(default_factory=count_cores)


@dataclass(frozen=True, slots=True)
class StageOutput:
    """What a stage says of the files it wrote.

    `facts` go to the manifest, and so does `measured`. Files named in `auxiliary` (logs with times
    in them) are hashed but stay outside the content hash, for they differ between equal runs, and
    so does what is `measured`: latencies, say. `earlier_seconds` is what processes that were killed
    had worked on it before. `unfinished` work goes on with a larger budget: its scratch is kept.
    """

    facts: Mapping[str, Any]
    auxiliary: tuple[str, ...] = ()
    measured: Mapping[str, Any] = field(default_factory=dict)
    earlier_seconds: float = 0.0
    unfinished: bool = False


class Stage(ABC):
    """One box of the pipeline."""

    info: ClassVar[StageInfo]

    def check(self, config: Any) -> None:  # noqa: B027 - most stages need nothing from outside
        """Raise if what the stage reads from outside the workspace is missing, before any work."""

    def check_model(  # noqa: B027 - most take any model
        self, model: Artefact, config: Any
    ) -> None:
        """Raise if the stage cannot take this model, before what else it needs is made."""

    def external_inputs(self, config: Any) -> dict[str, str]:
        """Hashes of what the stage reads from outside the workspace; part of the key."""
        return {}

    def list_tools(self, config: Any, parents: Mapping[str, Artefact]) -> tuple[str, ...]:
        """Return the distributions whose versions are part of the key of this artefact."""
        return self.info.tools

    def identify_parent(self, role: str, parent: Artefact) -> str:
        """What of a parent is part of the key: all of its content, unless less of it is read."""
        return parent.content

    def without_budget(self, config: Any) -> Any:
        """Return what all configs have in common that go on with each other's scratch."""
        return config

    @abstractmethod
    def run(self, parents: Mapping[str, Artefact], config: Any, context: Context) -> StageOutput:
        """Write files below ``context.directory`` and describe them."""
