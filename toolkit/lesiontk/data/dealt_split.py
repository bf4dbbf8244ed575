"""The record of a split: its task, its hash and the counts of each subset."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from lesiontk.data.tasks import Task
from lesiontk.document import Record


@dataclass(frozen=True, slots=True, kw_only=True)
class DealtSplit(Record):
    """The images of a task, split into training, validation and test.

    `images` and `lesions` are counts by subset and label. `lesions_on_several_sides` is 0 unless
    the split is `leaky`, dealt by image. `near_duplicates` is the rule for similar images,
    `near_duplicates_on_several_sides` counts the sets of them that are in more than one subset.
    """

    SCHEMA: ClassVar[int] = 2

    split_hash: str
    task: Task
    images: Mapping[str, Mapping[str, int]]
    lesions: Mapping[str, Mapping[str, int]]
    licence: str
    citation: str
    lesion_ids_known: bool
    patients: int = 0
    leaky: bool = False
    lesions_on_several_sides: int = 0
    near_duplicates: str = "group"
    near_duplicates_on_several_sides: int = 0
