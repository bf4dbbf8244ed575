"""Stage: the test images whose class an engine changes, the first ones with pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from lesiontk.backends.keras.backend import load_model
from lesiontk.backends.reference_outputs import engine_file
from lesiontk.data.images import ImageSet, PreparedImages, open_images, write_rows
from lesiontk.document import write_record
from lesiontk.errors import DataError
from lesiontk.explain.explanation import Heatmap
from lesiontk.explain.flips import (
    DOCUMENT,
    TABLE,
    Flip,
    Flips,
    find_direction,
    order_flips,
)
from lesiontk.explain.keras_grad_cam import GradCAM
from lesiontk.explain.overlay import draw_overlay, encode_picture
from lesiontk.records import Artefact
from lesiontk.stage import (
    Context,
    EngineName,
    Stage,
    StageConfig,
    StageInfo,
    StageOutput,
    collect_engines,
)
from lesiontk.stages.bench import find_reference
from lesiontk.stages.evaluate import Predictions, read_predictions

SUBSET = "test"


class FlipsConfig(StageConfig):
    """The engine, and the maximum number of flips with pictures."""

    target: str
    images: int = Field(ge=1)


class FlipsStage(Stage):
    """Produces ``flips.json``, a table of all flips, and pictures of the first.

    The heatmaps are those of the model that was converted, in full precision: its evidence for the
    parent's class, and for the engine's.
    """

    info: ClassVar[StageInfo] = StageInfo(
        name="flips",
        version=1,
        accepts={"model": "model", "images": "images", "evaluation": "evaluation"},
        produces="flips",
        schema_version=Flips.SCHEMA,
        config=FlipsConfig,
        tools=("tensorflow", "tf_keras", "numpy", "matplotlib", "Pillow"),
    )

    def run(
        self, parents: Mapping[str, Artefact], config: FlipsConfig, context: Context
    ) -> StageOutput:
        images = open_images(parents["images"])
        positive = parents["images"].read_facts(PreparedImages).task.positive
        rows = images.indices(SUBSET)
        evaluations = collect_engines(parents, "evaluation")
        target = EngineName(config.target)
        parent = find_reference(target, evaluations)
        if parent is None:
            raise DataError(
                f"{target} has no full-precision parent among {', '.join(evaluations)}."
            )
        before, after = (
            _read_outputs(evaluations[name], images, rows) for name in (parent, target)
        )
        ordered = order_flips(images.targets[rows], before, after, images.labels, positive)
        flips = [_describe(place, images, rows, before, after, positive) for place in ordered]
        chosen = ordered[: config.images]
        layer = ""
        if chosen:
            network = GradCAM(load_model(engine_file(parents["model"])))
            layer = network.layer
            pixels = images.pixels[rows[chosen]]
            maps = [network.explain(pixels, of[chosen].argmax(axis=1)) for of in (before, after)]
            flips[: len(chosen)] = [
                _draw(context.directory, number, *drawn)
                for number, drawn in enumerate(zip(flips, pixels, *maps, strict=False), start=1)
            ]
        found = Flips(
            target=target.target,
            parent=parent.target,
            reference=parent.reference,
            judged=len(rows),
            layer=layer,
            positive=positive,
            flips=tuple(flips),
        )
        write_record(context.directory / DOCUMENT, found)
        _write_table(context.directory / TABLE, found, images.labels)
        return StageOutput({"target": found.target, "judged": found.judged, **found.counts})


def read_flips(artefact: Artefact) -> Flips:
    """Return the flips. Raises `DataError` for those of another version of lesiontk."""
    return artefact.read(DOCUMENT, Flips)


def _read_outputs(
    evaluation: Artefact, images: ImageSet, rows: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Return [N, C] of these rows of the images."""
    predictions: Predictions = read_predictions(evaluation)
    _, outputs, _, image_ids, labels = predictions
    if image_ids != [images.image_ids[row] for row in rows] or tuple(labels) != images.labels:
        raise DataError(
            f"{evaluation.name} has other images or labels than the {SUBSET} subset of the images; "
            "expected evaluations of the same split. Run the benchmark again."
        )
    return outputs


def _describe(
    place: int,
    images: ImageSet,
    rows: NDArray[np.int64],
    before: NDArray[np.float32],
    after: NDArray[np.float32],
    positive: Sequence[str],
) -> Flip:
    labels, row = images.labels, rows[place]
    from_label, to_label = (labels[of[place].argmax()] for of in (before, after))
    parent, engine = (
        {label: float(f"{p:.7g}") for label, p in zip(labels, of[place], strict=True)}
        for of in (before, after)
    )
    return Flip(
        image_id=images.image_ids[row],
        group=images.groups[row],
        true_label=labels[images.targets[row]],
        from_label=from_label,
        to_label=to_label,
        direction=find_direction(from_label, to_label, positive),
        parent=parent,
        engine=engine,
    )


def _draw(
    folder: Path,
    number: int,
    flip: Flip,
    pixels: NDArray[np.uint8],
    *maps: NDArray[np.float32],
) -> Flip:
    """Write an image [S, S, 3] and the `maps` [S, S] of both classes; return the flip with them."""
    picture = f"{number:03d}_image.jpg"
    (folder / picture).write_bytes(encode_picture(pixels))
    evidence = []
    for role, label, heat in zip(
        ("from", "to"), (flip.from_label, flip.to_label), maps, strict=True
    ):
        name = f"{number:03d}_{role}.jpg"
        (folder / name).write_bytes(encode_picture(draw_overlay(pixels, heat)))
        evidence.append(Heatmap(label, name, not heat.any()))
    return replace(flip, picture=picture, evidence=tuple(evidence))


def _write_table(path: Path, found: Flips, labels: Sequence[str]) -> None:
    """Write a row per flip, with the probabilities of both."""
    columns = [f"{who}_{label}" for who in ("parent", "engine") for label in labels]
    write_rows(
        path,
        [
            {
                "image_id": flip.image_id,
                "group": flip.group,
                "true": flip.true_label,
                "from": flip.from_label,
                "to": flip.to_label,
                "direction": flip.direction.value,
                **{
                    f"{who}_{label}": p
                    for who, of in (("parent", flip.parent), ("engine", flip.engine))
                    for label, p in of.items()
                },
            }
            for flip in found.flips
        ],
        ("image_id", "group", "true", "from", "to", "direction", *columns),
    )
