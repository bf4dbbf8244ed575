"""Stage: the split of the inspected images into training, validation and test, by lesion."""

from __future__ import annotations

import csv
import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from lesiontk.data.dealt_split import DealtSplit
from lesiontk.data.images import write_rows
from lesiontk.data.inspection import Inspection
from lesiontk.data.split import (
    SplitItem,
    check_contradictions,
    check_leakage,
    count_leaks,
    group_images,
    hash_split,
    split_by_group,
)
from lesiontk.data.tasks import load_task
from lesiontk.files.hashing import hash_file
from lesiontk.recipe import SplitRule
from lesiontk.records import SUBSETS, Artefact, ImageRecord
from lesiontk.stage import Context, Stage, StageConfig, StageInfo, StageOutput
from lesiontk.stages.inspect_images import read_inspection

logger = logging.getLogger(__name__)

TABLE = "split.csv"
COLUMNS = ("image_id", "lesion_id", "group", "diagnosis", "label", "subset", "location",
           "pixel_sha256", "patient_id")  # fmt: skip


class SplitConfig(StageConfig):
    """The task with the labels, and the rule with the shares."""

    task: str
    rule: SplitRule


class SplitStage(Stage):
    """Produces ``split.csv`` and its hash, which every later artefact records."""

    info: ClassVar[StageInfo] = StageInfo(
        name="split",
        version=4,
        accepts={"inspection": "inspection"},
        produces="split",
        config=SplitConfig,
        schema_version=DealtSplit.SCHEMA,
        tools=("numpy",),
    )

    def external_inputs(self, config: SplitConfig) -> dict[str, str]:
        """The hash of a user's task file."""
        path = Path(config.task)
        return {"task": hash_file(path)} if path.is_file() else {}

    def run(
        self, parents: Mapping[str, Artefact], config: SplitConfig, context: Context
    ) -> StageOutput:
        inspection = parents["inspection"].read_facts(Inspection)
        if not inspection.lesion_ids_known:
            logger.warning(
                "lesion ids are not known for every image: one without counts as a separate "
                "lesion unless it is a near-duplicate, and images of one lesion may be in two "
                "subsets of the split"
            )
        task = load_task(config.task)
        images = read_inspection(parents["inspection"])
        labels = {
            row["image_id"]: task.labels[
                task.label_index(row["diagnosis"], row["coarser"].split("|"))
            ]
            for row in images
        }
        items = [
            SplitItem(
                row["image_id"],
                row["lesion_id"] or None,
                labels[row["image_id"]],
                row["pixel_sha256"],
                row["diagnosis"],
                row["patient_id"] or None,
                row["copy_of"],
                row["alike"],
            )
            for row in images
        ]
        if absent := [label for label in task.labels if label not in labels.values()]:
            logger.warning(
                "no image of %s: a model of the task %s cannot learn this class; `lesiontk task "
                "new` writes a task with the existing classes",
                ", ".join(absent),
                task.name,
            )
        rule = config.rule
        check_contradictions(items, rule.near_duplicates)
        groups = group_images(items, near_duplicates=rule.near_duplicates)
        subsets = split_by_group(
            items,
            {image: image for image in groups} if rule.leaky else groups,
            test=rule.test,
            validation=rule.validation,
            seed=rule.seed,
        )
        if not rule.leaky:
            check_leakage(items, subsets)
        leaks = count_leaks(items, subsets)
        alike = count_leaks(items, subsets, lambda item: item.alike)
        if leaks:
            logger.warning(
                "this split leaks: %d lesions have images in more than one subset; results on it "
                "are too optimistic",
                leaks,
            )
        if alike and rule.near_duplicates == "accept":
            logger.warning(
                "near-duplicates are accepted; sets of near-duplicates in more than one subset: %d",
                alike,
            )
        rows: list[dict[str, object]] = [
            {
                **{name: row[name] for name in COLUMNS if name in row},
                "group": groups[row["image_id"]],
                "label": labels[row["image_id"]],
                "subset": subsets[row["image_id"]],
            }
            for row in sorted(images, key=lambda row: row["image_id"])
        ]
        write_rows(context.directory / TABLE, rows, COLUMNS)
        split = DealtSplit(
            split_hash=hash_split(subsets, {r["image_id"]: r["diagnosis"] for r in images}),
            leaky=rule.leaky,
            lesions_on_several_sides=leaks,
            near_duplicates=rule.near_duplicates,
            near_duplicates_on_several_sides=alike,
            patients=len({row["patient_id"] for row in images if row["patient_id"]}),
            task=task,
            lesion_ids_known=inspection.lesion_ids_known,
            licence=inspection.licence,
            citation=inspection.citation,
            images=_count(rows, task.labels, "image_id"),
            lesions=_count(rows, task.labels, "group"),
        )
        return StageOutput(split.to_document())


def read_split(artefact: Artefact) -> list[dict[str, str]]:
    """Return the rows of a split, in the order of image ids."""
    with artefact.file(TABLE).open(newline="") as stream:
        return list(csv.DictReader(stream))


def list_records(rows: Iterable[Mapping[str, str]]) -> list[ImageRecord]:
    """Return the records of a split's images."""
    return [ImageRecord(r["image_id"], r["diagnosis"], r["location"]) for r in rows]


def _count(
    rows: list[dict[str, Any]], labels: tuple[str, ...], what: str
) -> dict[str, dict[str, int]]:
    """Return subset -> label -> number of different values of a column."""
    seen = {(row["subset"], row["label"], row[what]) for row in rows}
    counts = Counter((subset, label) for subset, label, _ in seen)
    return {subset: {label: counts[subset, label] for label in labels} for subset in SUBSETS}
