"""A compression technique: one stage that says of itself all that others need to know of it.

Plan, order, report, model card and command line ask the technique; none has a table of names.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

from lesiontk.errors import UsageError
from lesiontk.records import ModelFacts, ModelStep
from lesiontk.registry import Registry
from lesiontk.stage import Stage, StageInfo

ORIGINS: Final = {"train": "trained from its starting weights", "import": "trained elsewhere"}
"""The stages that a line of models begins with, and what is said of them."""

ZEROS, SHARED_VALUES = "zeros", "shared values"
EVEN_RANGES, LEARNED_RANGES = "even ranges", "learned ranges"
"""What a technique can leave in a model, and what a later one must hold so as not to undo it.

Any other text serves a technique that leaves something else.
"""

AS_TRAINED = ("imbalance", "augment", "batch_size", "micro_batches")
"""Keys of a training that goes on as the network was trained."""
RECOVERY: Final = {"recover": (*AS_TRAINED, "mixed_precision")}
"""`TechniqueInfo.inherits` of a technique whose network recovers in float."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TechniqueInfo(StageInfo):
    """What the plan, the order, the command line and a model's history need of a technique.

    `leaves` is what it puts into the model that training or other channels would undo, `why_last`
    why they would, and `holds` what of its parent's it does not undo. A technique may follow a
    model if it holds everything that the techniques before it left.

    `trains` says that its model is the network as it was trained, beside which compressed ones are
    judged; of others it is none. `inherits` maps a section of the config that is a training to the
    keys that it takes from the recipe's ``train`` unless they are given.

    `help` is the command's text and `options` its options: a key of the config, dotted in a
    section, mapped to its help. `argument` is the option that comes first on the command line,
    before the model; with `reads_images` the command takes the folder of the images. `networks` are
    the options that name a network of the workspace or a file.
    """

    produces: str = "model"
    schema_version: int = ModelFacts.SCHEMA
    holds: frozenset[str] = frozenset()
    leaves: frozenset[str] = frozenset()
    why_last: str = ""
    trains: bool = False
    inherits: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    help: str = ""
    options: Mapping[str, str] = field(default_factory=dict)
    argument: str = ""
    reads_images: bool = False
    networks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Teacher:
    """Whose probabilities of the training images a technique learns from.

    `files` are those of engines, whose mean counts; none stand for the last network of its own line
    that was trained.
    """

    files: tuple[str, ...] = ()


class Technique(Stage):
    """A stage that makes a model of a model. Its role ``model`` is the parent's."""

    info: ClassVar[TechniqueInfo]

    def image_size(self, config: Any) -> int | None:
        """Return the side of the images that its model takes, in pixels; None for its parent's."""
        return None

    def teacher(self, config: Any) -> Teacher | None:
        """Return whose predictions it wants in the role ``soft_targets``; None for no teacher.

        A config with a section `distill` that is not null learns from its own line.
        """
        return Teacher() if getattr(config, "distill", None) is not None else None

    def can_teach(self, config: Any) -> bool:
        """Whether its model is worth learning from: False for one that is still to recover."""
        return True

    @abstractmethod
    def describe(self, step: ModelStep) -> str:
        """Return in one sentence, without its end, what it changed in a model that it made."""

    def advise(self, step: ModelStep) -> str:
        """Return what the command adds of its result; empty for nothing."""
        return ""


TECHNIQUES: Registry[type[Technique]] = Registry("compression")
_STAGES = "lesiontk.stages"
TECHNIQUES.register(
    "resize", f"{_STAGES}.resize:ResizeStage", "Retrain a model for smaller images."
)
TECHNIQUES.register(
    "prune", f"{_STAGES}.prune:PruneStage", "Remove channels of a model and fine-tune it."
)
TECHNIQUES.register(
    "sparsify",
    f"{_STAGES}.sparsify:SparsifyStage",
    "Set the smallest weights to zero and fine-tune.",
)
TECHNIQUES.register(
    "cluster", f"{_STAGES}.cluster:ClusterStage", "Cluster the weights of each kernel."
)
TECHNIQUES.register(
    "distill",
    f"{_STAGES}.distill:DistillStage",
    "Train a model on a teacher's soft targets.",
    formerly="distil",
)
TECHNIQUES.register(
    "load_weights",
    f"{_STAGES}.load_weights:LoadWeightsStage",
    "Load weights trained elsewhere into a model.",
    formerly="adopt",
)
TECHNIQUES.register(
    "equalize",
    f"{_STAGES}.equalize:EqualizeStage",
    "Equalize weight ranges across layers (CLE) before int8.",
)
TECHNIQUES.register("qat", f"{_STAGES}.qat:QatStage", "Quantization-aware training.")


def find_technique(name: str) -> Technique:
    """Return the technique called `name`; `UsageError` names the nearest known one."""
    return TECHNIQUES.get(name)()


def list_left(line: Iterable[ModelStep]) -> frozenset[str]:
    """Return what the techniques of a line left in its last model, such as `ZEROS`.

    A technique may follow only if it holds what those before it left.
    """
    known = [TECHNIQUES.get(step.stage).info for step in line if step.stage in TECHNIQUES]
    return frozenset().union(*(info.leaves for info in known))


def trains_network(stage: str) -> bool:
    """Whether a stage's model is the network as it was trained, not a compressed one."""
    return stage in ORIGINS or (stage in TECHNIQUES and TECHNIQUES.get(stage).info.trains)


def check_order(technique: str, before: Sequence[str]) -> None:
    """Raise `UsageError` if a technique would undo what one of the stages `before` left."""
    for earlier in reversed(before):
        if not _may_follow(technique, earlier):
            raise UsageError(explain_order(technique, earlier))


def explain_order(technique: str, before: str) -> str:
    """Return why a technique cannot follow the stage `before`, and what to do instead."""
    allowed = [name for name in (*ORIGINS, *TECHNIQUES) if _may_follow(technique, name)]
    why = TECHNIQUES.get(before).info.why_last
    if technique == before:
        mend = f"expected {technique} once"
    elif _may_follow(before, technique):
        mend = f"put {technique} before {before}"
    else:
        mend = f"expected one of the two, because {before} cannot follow {technique} either"
    return (
        f"{technique} cannot follow {before}: {why}. {technique} may follow {', '.join(allowed)}; "
        f"{mend}."
    )


def _may_follow(technique: str, before: str) -> bool:
    left = frozenset() if before in ORIGINS else TECHNIQUES.get(before).info.leaves
    return left <= TECHNIQUES.get(technique).info.holds


def describe_step(step: ModelStep) -> str:
    """Return what a step of a model's history changed.

    It is empty for a technique that is not installed here.
    """
    if step.stage in ORIGINS:
        return ORIGINS[step.stage]
    return find_technique(step.stage).describe(step) if step.stage in TECHNIQUES else ""
