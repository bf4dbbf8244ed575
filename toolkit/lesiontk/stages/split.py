"""Stage: the split of the inspected images into training, validation and test, by lesion."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from lesiontk.data.dealt_split import DealtSplit
from lesiontk.data.image_table import SplitImage
from lesiontk.data.inspection import Inspection
from lesiontk.data.split import (
    SplitItem,
    check_contradictions,
    check_leakage,
    count_leaks,
    group_images,
    hash_split,
    split_by_group,
    split_fold,
)
from lesiontk.data.tasks import load_task
from lesiontk.document import read_table, write_table
from lesiontk.files.hashing import hash_file
from lesiontk.recipe import SplitRule
from lesiontk.records import SUBSETS, Artefact, ImageRecord
from lesiontk.stage import READING, Context, Stage, StageConfig, StageInfo, StageOutput
from lesiontk.stages.inspect_images import read_inspection

logger = logging.getLogger(__name__)

TABLE = "split.csv"


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
        needs=READING,
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
            image.image_id: task.labels[
                task.label_index(image.diagnosis, (image.coarser or "").split("|"))
            ]
            for image in images
        }
        items = [
            SplitItem(
                image.image_id,
                image.lesion_id,
                labels[image.image_id],
                image.pixel_sha256,
                image.diagnosis,
                image.patient_id,
                image.copy_of or "",
                image.alike or "",
            )
            for image in images
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
        subsets = _deal_subsets(items, groups, rule)
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
        rows = [
            SplitImage(
                image_id=image.image_id,
                lesion_id=image.lesion_id,
                group=groups[image.image_id],
                diagnosis=image.diagnosis,
                label=labels[image.image_id],
                subset=subsets[image.image_id],
                location=image.location,
                pixel_sha256=image.pixel_sha256,
                patient_id=image.patient_id,
            )
            for image in sorted(images, key=lambda image: image.image_id)
        ]
        write_table(context.directory / TABLE, SplitImage, rows)
        split = DealtSplit(
            split_hash=hash_split(subsets, {image.image_id: image.diagnosis for image in images}),
            leaky=rule.leaky,
            lesions_on_several_sides=leaks,
            near_duplicates=rule.near_duplicates,
            near_duplicates_on_several_sides=alike,
            patients=len({image.patient_id for image in images if image.patient_id}),
            task=task,
            lesion_ids_known=inspection.lesion_ids_known,
            licence=inspection.licence,
            citation=inspection.citation,
            images=_count(task.labels, [(r.subset, r.label, r.image_id) for r in rows]),
            lesions=_count(task.labels, [(r.subset, r.label, r.group) for r in rows]),
        )
        return StageOutput(split.to_document())


def _deal_subsets(
    items: Sequence[SplitItem], groups: Mapping[str, str], rule: SplitRule
) -> dict[str, str]:
    """Return image id -> subset, as the rule wants: one split, or a fold of several."""
    if rule.folds:
        return split_fold(
            items,
            groups,
            folds=rule.folds,
            fold=rule.fold,
            validation=rule.validation,
            seed=rule.seed,
        )
    return split_by_group(
        items,
        {image: image for image in groups} if rule.leaky else groups,
        test=rule.test,
        validation=rule.validation,
        seed=rule.seed,
    )


def read_split(artefact: Artefact) -> list[SplitImage]:
    """Return the images of a split, in the order of image ids."""
    return read_table(artefact.file(TABLE), SplitImage)


def list_records(images: Iterable[SplitImage]) -> list[ImageRecord]:
    """Return the records of a split's images."""
    return [ImageRecord(image.image_id, image.diagnosis, image.location) for image in images]


def _count(
    labels: tuple[str, ...], seen: Iterable[tuple[str, str, str]]
) -> dict[str, dict[str, int]]:
    """Return subset -> label -> number of different names."""
    counts = Counter((subset, label) for subset, label, _ in set(seen))
    return {subset: {label: counts[subset, label] for label in labels} for subset in SUBSETS}
