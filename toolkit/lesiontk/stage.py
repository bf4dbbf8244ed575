"""A stage: a function from parent artefacts and a validated config to a new artefact."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    SerializationInfo,
    SerializerFunctionWrapHandler,
    model_serializer,
)

from lesiontk.progress import NoProgress, Progress
from lesiontk.records import Artefact, ManifestHeader
from lesiontk.system.cores import count_cores
from lesiontk.tracking import TrackedRun

T = TypeVar("T")

ADDED_LATER: dict[str, Any] = {}
"""Marks a field of a config that came after its stage's version; compared by identity."""


class StageConfig(BaseModel):
    """Base of every config: unknown keys are errors, instances are frozen.

    A field with ``exclude=True``, such as a path on this machine, is not part of the key. A field
    with ``json_schema_extra=ADDED_LATER`` is not part of it at its default, which must be what the
    stage did before it had the field: older artefacts stay valid.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    def key_document(self) -> dict[str, Any]:
        """Return the config as it enters a key."""
        return self.model_dump(mode="json", context=ADDED_LATER)

    @model_serializer(mode="wrap")
    def _omit_added(
        self, serialize: SerializerFunctionWrapHandler, info: SerializationInfo
    ) -> dict[str, Any]:
        document: dict[str, Any] = serialize(self)
        if info.context is ADDED_LATER:
            for name, field in type(self).model_fields.items():
                if field.json_schema_extra is ADDED_LATER and getattr(self, name) == field.default:
                    del document[name]
        return document

    def refuse_idle(self, *names: str, belongs_to: str) -> None:
        """Raise `ValueError` if one of these keys, which have no effect here, was set."""
        for name in names:
            if name in self.model_fields_set:
                raise ValueError(
                    f"{name} belongs to {belongs_to} and has no effect here: remove it"
                )


class StepId(str):
    """The name of a step: kind, target and variant of its artefact.

    It is a text, ``engine:tflite:int8@trained``, and also the role of the artefact for a stage with
    several parents of a kind. Its parts are fields and are never parsed. `of` is the target with
    its variant, ``tflite:int8@trained``.
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
"""The variant of an engine of the trained network, the reference of compressed ones."""


class EngineName(str):
    """An engine of a benchmark: its target, and whether it is of the trained network, the reference
    of a compressed one.

    It is a text, ``tflite:float32@trained``, where it is shown or a key. Its parts are fields and
    are never parsed.
    """

    target: str
    reference: bool

    def __new__(cls, target: str, *, reference: bool = False) -> EngineName:
        """Return the name of these parts; `target` may be a name already."""
        if isinstance(target, EngineName):
            return target
        name = super().__new__(cls, f"{target}@{REFERENCE}" if reference else target)
        name.target, name.reference = target, reference
        return name


def split_reference(document: Mapping[str, Any], key: str) -> dict[str, Any]:
    """Return a document with a target at `key`; earlier documents mark a reference in its text."""
    target, mark, _ = str(document.get(key)).partition(f"@{REFERENCE}")
    return {**document, key: target, "reference": True} if mark else {**document}


def kind_of_role(role: str) -> str:
    """Return the role as in `StageInfo.accepts`: without its target."""
    return role.kind if isinstance(role, StepId) else role


def collect_roles(parents: Mapping[str, T], kind: str) -> dict[str, T]:
    """Return `StepId.of` -> parent, of those whose role is of this kind."""
    return {
        role.of: parent
        for role, parent in parents.items()
        if isinstance(role, StepId) and role.kind == kind
    }


def collect_engines(parents: Mapping[str, T], kind: str) -> dict[EngineName, T]:
    """Return engine -> parent, as `collect_roles`."""
    return {
        EngineName(role.target, reference=role.variant == REFERENCE): parent
        for role, parent in parents.items()
        if isinstance(role, StepId) and role.kind == kind
    }


@dataclass(frozen=True, slots=True)
class Needs:
    """What a stage takes of a machine, for an executor that runs several stages at once.

    `cpus` is the number of cores that it uses well. With `gpu` it takes a GPU where there is one.
    With `here` it reads files outside the workspace, which other machines may lack. With `alone` it
    measures the machine: nothing else may run there meanwhile.
    """

    cpus: int = 1
    gpu: bool = False
    here: bool = False
    alone: bool = False


TRAINING = Needs(cpus=2, gpu=True)
READING = Needs(here=True)
MEASURING = Needs(here=True, alone=True)


@dataclass(frozen=True, slots=True)
class StageInfo:
    """The properties of a stage for the plan check, the store and the command line.

    `accepts` maps each parent's role to the artefact kind it must be (``a|b`` for either); a role
    of several parents is written ``role:which``. `tools` are the distributions whose version is
    part of every key; `Stage.list_tools` adds those that depend on config and parents.
    `schema_version` is that of the record it produces.
    """

    name: str
    version: int
    accepts: Mapping[str, str]
    produces: str
    config: type[StageConfig]
    tools: tuple[str, ...] = ()
    schema_version: int = 1
    needs: Needs = Needs()


class StoppedError(Exception):
    """Raised by an observer of a training to end it; its checkpoints stay, as after a kill."""


EpochObserver = Callable[[int, Mapping[str, float]], None]
"""Gets the number of a finished epoch, from 1, its training loss and its validation metrics."""


class BuildObserver:
    """Observes what a store makes; this one does nothing. What a method raises ends the build."""

    def connect(self) -> None:
        """Raise if it cannot observe; called before any work."""

    def begin(self, header: ManifestHeader) -> None:
        """An artefact is not in the workspace: its stage runs next."""

    def epoch(self, header: ManifestHeader, epoch: int, metrics: Mapping[str, float]) -> None:
        """An epoch of its training is finished; arguments as of an `EpochObserver`."""

    def end(self, artefact: Artefact) -> None:
        """An artefact was made, or is reused."""

    def fail(self, header: ManifestHeader, error: BaseException) -> None:
        """Its stage raised the error, which the build raises next."""

    def record(self, run: TrackedRun) -> None:
        """A result that is no artefact, such as a trial of a search."""


@dataclass(frozen=True, slots=True)
class Context:
    """The folders and the progress of a stage.

    `directory` becomes the artefact. `scratch` survives a killed process (checkpoints) and is
    removed on success. `on_epoch` observes the training of a network.
    """

    directory: Path
    scratch: Path
    recipe: str = ""
    progress: Progress = field(default_factory=NoProgress)
    threads: int = field(default_factory=count_cores)
    on_epoch: EpochObserver | None = None


@dataclass(frozen=True, slots=True)
class StageOutput:
    """The description of the files that a stage wrote.

    `facts` and `measured` go to the manifest. The content hash excludes `measured` (latencies, for
    example) and the files named in `auxiliary` (logs with times), because they differ between equal
    runs. `earlier_seconds` is the time that killed processes spent on the same work before.
    `unfinished` work can continue with a larger budget: its scratch folder is kept.
    """

    facts: Mapping[str, Any]
    auxiliary: tuple[str, ...] = ()
    measured: Mapping[str, Any] = field(default_factory=dict)
    earlier_seconds: float = 0.0
    unfinished: bool = False


class Stage(ABC):
    """One stage of the pipeline."""

    info: ClassVar[StageInfo]

    def check(self, config: Any) -> None:  # noqa: B027 - most stages have no external input
        """Raise, before any work, if an external input is missing."""

    def check_model(  # noqa: B027 - most accept any model
        self, model: Artefact, config: Any
    ) -> None:
        """Raise if the stage does not support this model, before its other parents are made."""

    def external_inputs(self, config: Any) -> dict[str, str]:
        """Return the hashes of inputs from outside the workspace; they are part of the key."""
        return {}

    def list_tools(self, config: Any, parents: Mapping[str, Artefact]) -> tuple[str, ...]:
        """Return the distributions whose versions are part of the key of this artefact."""
        return self.info.tools

    def identify_parent(self, role: str, parent: Artefact) -> str:
        """Return the part of a parent that enters the key; by default its whole content."""
        return parent.content

    def without_budget(self, config: Any) -> Any:
        """Return the config without its budget; equal results can resume each other's scratch."""
        return config

    @abstractmethod
    def run(self, parents: Mapping[str, Artefact], config: Any, context: Context) -> StageOutput:
        """Write files below ``context.directory`` and describe them."""
