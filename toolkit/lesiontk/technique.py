"""The interface of a compression technique: a stage with all properties that others need.

Plan, order, report, model card and command line use these properties; none has a table of names.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

from lesiontk.errors import UsageError
from lesiontk.records import ModelFacts, ModelStep
from lesiontk.registry import Registry
from lesiontk.stage import TRAINING, Needs, Stage, StageInfo

ORIGINS: Final = {"train": "trained from initial weights", "import": "trained elsewhere"}
"""The stages that begin a line of models, with their descriptions."""

ZEROS, SHARED_VALUES = "zeros", "shared values"
EVEN_RANGES, LEARNED_RANGES = "even ranges", "learned ranges"
"""Properties that a technique leaves in a model, and that a later one must preserve.

A technique can define others, as any text.
"""

AS_TRAINED = ("imbalance", "augment", "batch_size", "micro_batches")
"""Keys of fine-tuning that are those of the network's training."""
RECOVERY: Final = {"recover": (*AS_TRAINED, "mixed_precision")}
"""`TechniqueInfo.inherits` of a technique with fine-tuning in float."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TechniqueInfo(StageInfo):
    """The properties of a technique for the plan, the order, the command line and the history.

    `leaves` are the properties of its model that training or pruning would undo, `why_last` is the
    reason, and `holds` are the properties of its parent that it preserves. A technique may follow a
    model if it preserves those of all earlier techniques.

    With `trains` its model is the trained network, the reference of compressed ones. `inherits`
    maps a section of the config with a training to the keys whose defaults are those of the
    recipe's ``train``.

    `help` is the command's text and `options` its options: a key of the config, dotted in a
    section, mapped to its help. `argument` is the option that is the first positional argument,
    before the model; with `reads_images` the command has an option for the folder of the images.
    `networks` are the options with a network of the workspace or a file, `weights` those with a
    file of weights.
    """

    produces: str = "model"
    schema_version: int = ModelFacts.SCHEMA
    needs: Needs = TRAINING
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
    weights: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Teacher:
    """The teacher of a technique.

    `files` are those of engines, whose mean prediction over `views` mirrored images is the target;
    without any, it is the last trained network of the technique's own line. With `features` the
    pooled features of the first engine that exposes them are stored, too.
    """

    files: tuple[str, ...] = ()
    views: int = 4
    features: bool = False


class Technique(Stage):
    """A stage that makes a model from a model. Its role ``model`` is the parent's."""

    info: ClassVar[TechniqueInfo]

    def image_size(self, config: Any) -> int | None:
        """Return the input size of its model in pixels; None for its parent's."""
        return None

    def teacher(self, config: Any) -> Teacher | None:
        """Return the teacher for the role ``soft_targets``, or None.

        With a section `distill` that is not null, it is a model of its own line.
        """
        return Teacher() if getattr(config, "distill", None) is not None else None

    def can_teach(self, config: Any) -> bool:
        """Return whether its model can be a teacher: False before fine-tuning."""
        return True

    @abstractmethod
    def describe(self, step: ModelStep) -> str:
        """Return in one sentence, without its end, what it changed in a model that it made."""

    def advise(self, step: ModelStep) -> str:
        """Return a note of the command on the result, or an empty text."""
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
    "prune_blocks",
    f"{_STAGES}.prune_blocks:PruneBlocksStage",
    "Remove residual blocks of a model and fine-tune it.",
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
    """Return the technique called `name`. Raises `UsageError` with the nearest known one."""
    return TECHNIQUES.get(name)()


def list_left(line: Iterable[ModelStep]) -> frozenset[str]:
    """Return what the techniques of a line left in its last model, such as `ZEROS`.

    A technique may follow only if it holds what those before it left.
    """
    known = [TECHNIQUES.get(step.stage).info for step in line if step.stage in TECHNIQUES]
    return frozenset().union(*(info.leaves for info in known))


def trains_network(stage: str) -> bool:
    """Return whether a stage's model is a trained network, not a compressed one."""
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
        remedy = f"expected {technique} once"
    elif _may_follow(before, technique):
        remedy = f"put {technique} before {before}"
    else:
        remedy = f"expected one of the two, because {before} cannot follow {technique} either"
    return (
        f"{technique} cannot follow {before}: {why}. {technique} may follow {', '.join(allowed)}; "
        f"{remedy}."
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
