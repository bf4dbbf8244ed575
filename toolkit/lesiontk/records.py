"""The frozen records that modules and stages exchange."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from lesiontk.document import Record
from lesiontk.errors import DataError
from lesiontk.files.strict_json import read_json

R = TypeVar("R", bound=Record)
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
ARTEFACT_NAME = re.compile(r"[a-z][a-z0-9_]*-[0-9a-f]{12}")
"""The name of an artefact's folder: its kind and the first digits of its key."""

MODEL_FILE = "model.keras"
"""The file of a model artefact."""
SUBSETS = ("train", "validation", "test")
MAY_HAVE_SEEN_TEST = "may_have_seen_test"
"""Key in `EngineSpec.extra` of an imported model."""
NOTICE = "Research software; not a medical device."


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """One image of a data source.

    `location` is a path below the source's root, with ``archive.zip::member`` inside an archive.
    `diagnosis` is the source's code in lower case; a task maps it to a label. `coarser` are broader
    diagnoses that the source records for it, down to "malignant".
    """

    image_id: str
    diagnosis: str
    location: str
    lesion_id: str | None = None
    age: float | None = None
    sex: str | None = None
    site: str | None = None
    patient_id: str | None = None
    coarser: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Preprocessing(Record):
    """The conversion of an image of any size to an engine's input; stored with every model.

    `crop_mode` is ``crop`` (largest centred square) or ``stretch`` (aspect ratio not preserved).
    `enhance` lists the filters that follow, in order. Normalization of the pixel values is part of
    the graph.
    """

    image_size: Annotated[int, Field(strict=True)]
    crop_mode: str = "crop"
    interpolation: str = "bilinear"
    enhance: tuple[str, ...] = ()

    @classmethod
    def upgrade(cls, document: dict[str, Any]) -> dict[str, Any]:
        """Return the document; files before 0.2 call `crop_mode` ``fit``."""
        return {"crop_mode" if name == "fit" else name: v for name, v in document.items()}

    def __post_init__(self) -> None:
        if not isinstance(self.image_size, int) or not 8 <= self.image_size <= 2048:
            raise DataError(f"image_size is {self.image_size}; expected 8 to 2048 pixels.")
        if self.crop_mode not in ("crop", "stretch"):
            raise DataError(f"crop_mode is {self.crop_mode!r}; expected 'crop' or 'stretch'.")
        if self.interpolation != "bilinear":
            raise DataError(f"interpolation is {self.interpolation!r}; expected 'bilinear'.")
        listed = isinstance(self.enhance, tuple | list)
        if not listed or not all(isinstance(name, str) for name in self.enhance):
            raise DataError(f"enhance is {self.enhance!r}; expected a list of names.")
        object.__setattr__(self, "enhance", tuple(self.enhance))  # documents have lists


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """The interface of an engine: input uint8 [N, size, size, 3] RGB, output float32 [N, C]."""

    labels: tuple[str, ...]
    preprocessing: Preprocessing
    task: str
    backend: str
    precision: str
    recipe: str
    split_hash: str
    licence: str = ""
    notice: str = NOTICE
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        named = all(isinstance(label, str) and label for label in self.labels)
        if named and not all(label.isprintable() for label in self.labels):
            raise DataError(f"labels are {self.labels}; expected names without control characters.")
        if not named or len(self.labels) < 2 or len(set(self.labels)) != len(self.labels):
            raise DataError(f"labels are {self.labels}; expected two or more different names.")
        for name in ("task", "backend", "precision", "recipe", "split_hash", "licence", "notice"):
            if not isinstance(getattr(self, name), str):
                raise DataError(f"{name} is {getattr(self, name)!r}; expected text.")
            if not getattr(self, name).replace("\n", "").isprintable():
                raise DataError(
                    f"{name} is {getattr(self, name)!r}; expected text without control "
                    "characters, which a terminal would interpret."
                )
        if not isinstance(self.extra, Mapping):
            raise DataError(f"extra is {self.extra!r}; expected a mapping.")

    @property
    def may_have_seen_test(self) -> bool:
        """Whether the model may have been trained on the test images of its split."""
        return bool(self.extra.get(MAY_HAVE_SEEN_TEST))

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of one image."""
        return (self.preprocessing.image_size, self.preprocessing.image_size, 3)


@dataclass(frozen=True, slots=True)
class ValidationScores(Record):
    """Metric -> value of a model on the `n` validation images."""

    n: int
    metrics: Mapping[str, float]

    @classmethod
    def upgrade(cls, document: dict[str, Any]) -> dict[str, Any]:
        """Return the document; earlier published results have the metrics beside `n`."""
        if "metrics" in document:
            return document
        metrics = {name: v for name, v in document.items() if name not in ("n", "loss")}
        return {"n": document.get("n"), "metrics": metrics}

    @property
    def balanced_accuracy(self) -> float:
        """The metric by which epochs and models are compared."""
        return self.metrics["balanced_accuracy"]


@dataclass(frozen=True, slots=True)
class EngineFootprint(Record):
    """An engine file's size and deflated size in bytes, and its median latency in ms."""

    size_bytes: int
    deflated_bytes: int
    median_ms: float


@dataclass(frozen=True, slots=True)
class Footprint(Record):
    """What a compression changes on a device, as an engine of the target `engine`.

    Latency is that of one image on one thread: the median of `n` rounds in turns, or of `n`
    queries after each other on the other machine `device`.
    """

    engine: str
    n: int
    before: EngineFootprint
    after: EngineFootprint
    device: str = ""


@dataclass(frozen=True, slots=True)
class RecallConstraint(Record):
    """Label -> the recall to keep, and label -> by how much its bias was raised for that."""

    wanted: Mapping[str, float]
    bias_raised: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelStep(Record):
    """A model as its children remember it: made by `stage`, trained for `epochs`.

    `recalls` are those on validation by label. `change` is the document of the stage's own record.
    `footprint` is None in a history, because it differs between equal runs.
    """

    stage: str
    parameters: int
    epochs: int
    validation: ValidationScores
    recalls: Mapping[str, float]
    change: Mapping[str, Any] = field(default_factory=dict)
    footprint: Footprint | None = None

    def read_change(self, record: type[R]) -> R:
        """Return what the stage changed, as its own record."""
        return record.from_document(self.change)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts(ModelStep):
    """A model of the workspace. `history` are the models before it, the trained one first.

    `may_have_seen_test` says that it, or what it was made of, may have been trained on the test
    images of its split. `recall_constraint` is None for a model that was not held to recalls.
    """

    SCHEMA: ClassVar[int] = 2

    architecture: str
    labels: tuple[str, ...]
    task: str
    critical: str
    preprocessing: Preprocessing
    split_hash: str
    best_epoch: int
    recall_constraint: RecallConstraint | None = None
    may_have_seen_test: bool = False
    history: tuple[ModelStep, ...] = ()

    @property
    def line(self) -> tuple[ModelStep, ...]:
        """The models from the trained one to this."""
        return (*self.history, self)

    @property
    def step(self) -> ModelStep:
        """What its children remember."""
        return ModelStep(
            stage=self.stage,
            parameters=self.parameters,
            epochs=self.epochs,
            validation=self.validation,
            recalls=self.recalls,
            change=self.change,
        )


@dataclass(frozen=True, slots=True)
class Availability:
    """Whether something can be used on this machine, and if not, the reason and the remedy."""

    available: bool
    reason: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class StageVersion(_Entry):
    """The stage that made an artefact."""

    name: str
    version: int


class ParentEntry(_Entry):
    """A parent is a folder beside its child, given by name, so that no path leads elsewhere."""

    name: str = Field(pattern=f"^{ARTEFACT_NAME.pattern}$")
    key: Sha256
    content: Sha256


class FileEntry(_Entry):
    """One file of an artefact: its size in bytes and SHA-256."""

    bytes: int = Field(ge=0)
    sha256: Sha256


def _check_inside(name: str) -> str:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or str(path) != name or name in ("", "."):
        raise ValueError("is not a path inside the artefact")
    return name


class ManifestHeader(_Entry):
    """What is known of an artefact before its stage runs; `key` is the SHA-256 of its inputs.

    `config` is the stage's own document; `recipe` that of the last use, empty without one.
    """

    format: int
    kind: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    key: Sha256
    stage: StageVersion
    schema_version: int
    config: dict[str, Any]
    external_inputs: dict[str, str]
    tools: dict[str, str]
    parents: dict[str, ParentEntry]
    recipe: dict[str, Any]

    @property
    def name(self) -> str:
        """The artefact's name, ``<kind>-<first 12 digits of key>``."""
        return f"{self.kind}-{self.key[:12]}"

    @property
    def recipe_name(self) -> str:
        """The name of the recipe, or an empty string."""
        return str(self.recipe.get("name", ""))


class Manifest(ManifestHeader):
    """Every key of an artefact's manifest; `facts` is the document of its stage's record.

    `content` and `seal` are hashes over the rest, which the store writes and checks.
    """

    content: str = ""
    seal: str = ""
    files: dict[Annotated[str, AfterValidator(_check_inside)], FileEntry]
    auxiliary: list[str]
    facts: dict[str, Any]
    measured: dict[str, Any]
    environment: dict[str, str | int]
    created: float
    seconds: float = Field(ge=0)


class Failure(ManifestHeader):
    """A stage that raised; `traceback` is None for an error that a user can cause."""

    error: str
    error_class: str
    traceback: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ancestry(Record):
    """An artefact and, by role, its parents.

    Of one that is `gone`, or was `changed` since its child was made, only the name and the recorded
    content are known.
    """

    name: str
    content: str
    stage: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)
    parents: Mapping[str, Ancestry] = field(default_factory=dict)
    gone: bool = False
    changed: str | None = None


@dataclass(frozen=True, slots=True)
class Artefact:
    """A verified folder in the workspace; `manifest` describes it."""

    path: Path
    manifest: Manifest

    @property
    def kind(self) -> str:
        """The folder's kind, such as ``model``."""
        return self.manifest.kind

    @property
    def key(self) -> str:
        """The full SHA-256 key of its inputs."""
        return self.manifest.key

    @property
    def content(self) -> str:
        """SHA-256 over the names and hashes of its content files, and its facts."""
        return self.manifest.content

    @property
    def name(self) -> str:
        """The folder's name, ``<kind>-<first 12 digits of key>``."""
        return self.manifest.name

    @property
    def stage(self) -> str:
        """The name of the stage that made it."""
        return self.manifest.stage.name

    @property
    def recipe_name(self) -> str:
        """The recipe for which it was first made, or an empty string."""
        return self.manifest.recipe_name

    @property
    def facts(self) -> Mapping[str, Any]:
        """The facts of the stage: labels, metrics with n, fallbacks, specs."""
        return {**self.manifest.facts, **self.manifest.measured}

    def read(self, name: str, record: type[R]) -> R:
        """Return the record in one of its JSON files; errors as `read_facts`."""
        self._check_schema(record)
        return record.from_document(read_json(self.file(name), name))

    def read_facts(self, record: type[R]) -> R:
        """Return the facts as a record.

        Raises `DataError` for an artefact with another version of the record.
        """
        self._check_schema(record)
        return record.from_document(self.facts)

    def _check_schema(self, record: type[Record]) -> None:
        found = self.manifest.schema_version
        if found != record.SCHEMA:
            raise DataError(
                f"{self.name} has a {record.__name__} of version {found}; this lesiontk reads "
                f"version {record.SCHEMA}. Run the command that made it again; it will be rebuilt."
            )

    def file(self, name: str) -> Path:
        """Return the path of one file. Raises `DataError` with the known names for another."""
        if name not in self.manifest.files:
            known = ", ".join(sorted(self.manifest.files))
            raise DataError(f"{self.name} has no file {name!r}; it has {known}.")
        return self.path / name
