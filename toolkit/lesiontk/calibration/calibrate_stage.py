"""Stage: the list of training images on which int8 ranges are measured."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from lesiontk.calibration.draw import (
    draw_calibration,
    prove_disjoint,
    read_list,
    select_listed,
)
from lesiontk.data.images import ImageSet, open_images, write_rows
from lesiontk.hashing import hash_document
from lesiontk.recipe import CalibrateConfig
from lesiontk.records import Artefact
from lesiontk.stage import Context, Stage, StageInfo, StageOutput

TABLE = "calibration.csv"
COLUMNS = ("image_id", "lesion_id", "label")


class CalibrateStage(Stage):
    """Produces ``calibration.csv``; pixel hashes and the proof of disjointness are its facts."""

    info: ClassVar[StageInfo] = StageInfo(
        name="calibrate",
        version=1,
        accepts={"images": "images"},
        produces="calibration",
        config=CalibrateConfig,
        tools=("numpy",),
    )

    def external_inputs(self, config: CalibrateConfig) -> dict[str, str]:
        """The hash of the ids of a list that was named."""
        return {"list": hash_document(read_list(config.list))} if config.list else {}

    def run(
        self, parents: Mapping[str, Artefact], config: CalibrateConfig, context: Context
    ) -> StageOutput:
        images = open_images(parents["images"])
        rows = (
            select_listed(images, read_list(config.list))
            if config.list
            else draw_calibration(images, config.images, config.draw, config.seed)
        )
        compared = prove_disjoint(images, rows)
        write_rows(
            context.directory / TABLE,
            [
                {
                    "image_id": images.image_ids[row],
                    "lesion_id": images.groups[row],
                    "label": images.labels[images.targets[row]],
                }
                for row in rows
            ],
            COLUMNS,
        )
        counts = np.bincount(images.targets[rows], minlength=len(images.labels))
        return StageOutput(
            {
                "images": len(rows),
                "images_by_label": dict(zip(images.labels, counts.tolist(), strict=True)),
                "draw": "list" if config.list else config.draw,
                "list": Path(config.list).name if config.list else None,
                "seed": config.seed,
                "observer": config.observer,
                "split_hash": images.split_hash,
                "disjoint_from": compared,
                "pixel_sha256": {images.image_ids[row]: images.hashes[row] for row in rows},
            }
        )


def calibration_rows(artefact: Artefact, images: ImageSet) -> NDArray[np.int64]:
    """Return the rows of a calibration list, proven again to be training images only."""
    with artefact.file(TABLE).open(newline="") as stream:
        rows = select_listed(images, [row["image_id"] for row in csv.DictReader(stream)])
    prove_disjoint(images, rows)
    return rows
