"""Stage: the calibration list, the training images on which int8 ranges are measured."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from lesiontk.calibration.brightness import BANDS, band_edges, measure_luma, name_band
from lesiontk.calibration.composition import UNKNOWN, count_composition, count_levels
from lesiontk.calibration.draw import (
    draw_calibration,
    prove_disjoint,
    read_list,
    select_listed,
)
from lesiontk.calibration.drawn_list import DrawnList
from lesiontk.data.images import ImageSet, open_images, write_rows
from lesiontk.files.hashing import hash_document
from lesiontk.recipe import CalibrateConfig
from lesiontk.records import Artefact
from lesiontk.stage import READING, Context, Stage, StageInfo, StageOutput
from lesiontk.stages.inspect_images import read_inspection

TABLE = "calibration.csv"
COLUMNS = ("image_id", "lesion_id", "label", "site", "luma", "brightness")


class CalibrateStage(Stage):
    """Produces ``calibration.csv``; pixel hashes and the proof of disjointness are its facts.

    Body sites are those of the inspection, unknown without one; `luma` is the mean of the prepared
    image, 0..255, and `brightness` its quartile among the training images.
    """

    info: ClassVar[StageInfo] = StageInfo(
        name="calibrate",
        version=2,
        accepts={"images": "images", "inspection": "inspection"},
        produces="calibration",
        config=CalibrateConfig,
        schema_version=DrawnList.SCHEMA,
        tools=("numpy",),
        needs=READING,
    )

    def external_inputs(self, config: CalibrateConfig) -> dict[str, str]:
        """The hash of the ids of a specified list."""
        return {"list": hash_document(read_list(config.list))} if config.list else {}

    def run(
        self, parents: Mapping[str, Artefact], config: CalibrateConfig, context: Context
    ) -> StageOutput:
        images = open_images(parents["images"])
        cover = describe_cover(images, parents.get("inspection"))
        sites, luma, bands, edges = cover.sites, cover.luma, cover.bands, cover.edges
        rows = (
            select_listed(images, read_list(config.list))
            if config.list
            else draw_covering(images, cover, config)
        )
        compared = prove_disjoint(images, rows)
        table: list[dict[str, str]] = [
            {
                "image_id": images.image_ids[row],
                "lesion_id": images.groups[row],
                "label": images.labels[images.targets[row]],
                "site": sites[row],
                "luma": f"{luma[row]:.1f}",
                "brightness": bands[row],
            }
            for row in rows
        ]
        write_rows(context.directory / TABLE, table, COLUMNS)
        counts = np.bincount(images.targets[rows], minlength=len(images.labels))
        composition = count_composition(table)
        brightness = count_levels(composition["brightness"])
        drawn = DrawnList(
            images=len(rows),
            images_by_label=dict(zip(images.labels, counts.tolist(), strict=True)),
            images_by_site=count_levels(composition["site"]),
            images_by_brightness={band: brightness.get(band, 0) for band in BANDS},
            brightness_edges=tuple(round(edge, 3) for edge in edges),
            sites_of_training=len({sites[row] for row in luma}),
            draw="list" if config.list else config.draw,
            cover=() if config.list else tuple(config.cover),
            list=Path(config.list).name if config.list else None,
            seed=config.seed,
            observer=config.observer,
            split_hash=images.split_hash,
            disjoint_from=compared,
            pixel_sha256={images.image_ids[row]: images.hashes[row] for row in rows},
        )
        return StageOutput(drawn.to_document())


@dataclass(frozen=True, slots=True)
class Cover:
    """The properties over which a draw is stratified: the body site of every image, and its luma.

    `bands` are the names of brightness, empty outside of the training subset; `edges` separate
    them.
    """

    sites: list[str]
    luma: dict[int, float]
    bands: list[str]
    edges: Sequence[float]


def describe_cover(images: ImageSet, inspection: Artefact | None) -> Cover:
    """Return the properties over which a draw from these images is stratified."""
    sites = _read_sites(images, inspection)
    train = images.indices("train")
    luma = dict(zip(train.tolist(), measure_luma(images.pixels, train), strict=True))
    edges = band_edges(np.array(list(luma.values())))
    bands = ["" if r not in luma else name_band(luma[r], edges) for r in range(len(sites))]
    return Cover(sites, luma, bands, edges)


def draw_covering(images: ImageSet, cover: Cover, config: CalibrateConfig) -> NDArray[np.int64]:
    """Return the rows of a config's draw."""
    levels = {"site": cover.sites, "brightness": cover.bands}
    chosen = [levels[axis] for axis in config.cover]
    return draw_calibration(images, config.images, config.draw, config.seed, chosen)


def calibration_rows(artefact: Artefact, images: ImageSet) -> NDArray[np.int64]:
    """Return the rows of a calibration list, after another proof that all are training images."""
    rows = select_listed(images, [row["image_id"] for row in read_calibration(artefact)])
    prove_disjoint(images, rows)
    return rows


def read_calibration(artefact: Artefact) -> list[dict[str, str]]:
    """Return the rows of a calibration list."""
    with artefact.file(TABLE).open(newline="") as stream:
        return list(csv.DictReader(stream))


def _read_sites(images: ImageSet, inspection: Artefact | None) -> list[str]:
    """Return the body site of every image, in the order of the images."""
    known = {} if inspection is None else {
        row.image_id: row.site for row in read_inspection(inspection)
    }  # fmt: skip
    return [known.get(image_id) or UNKNOWN for image_id in images.image_ids]
