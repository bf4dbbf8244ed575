"""Stage: the range of every tensor of a float engine, measured once for all that is derived."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from lesiontk.backends import BACKENDS
from lesiontk.backends.keras_backend import MODEL_FILE, layer_values
from lesiontk.backends.learned_ranges import (
    LEARNED,
    apply_learned,
    match_tensors,
    read_learned,
)
from lesiontk.calibration.calibrate_stage import calibration_rows
from lesiontk.calibration.ranges import (
    Ranges,
    TensorRange,
    measure_ranges,
    read_ranges,
    write_ranges,
)
from lesiontk.data.images import open_images
from lesiontk.records import Artefact
from lesiontk.stage import Context, Stage, StageConfig, StageInfo, StageOutput

FILE = "ranges.csv"


class RangesConfig(StageConfig):
    """Nothing: the list says which images, and the observer; the engine which tensors."""


class RangesStage(Stage):
    """Produces ``ranges.csv``: what each tensor takes, and the range that the observer gives it.

    A model from quantization-aware training brings ranges of its own, which stand in the place of
    the observer's.

    Its key is that of the engine's content, the list and its observer, so that another precision or
    back end derived from the same engine does not measure again.
    """

    info: ClassVar[StageInfo] = StageInfo(
        name="ranges",
        version=1,
        accepts={
            "source": "engine",
            "images": "images",
            "calibration": "calibration",
            "model": "model",
        },
        produces="ranges",
        config=RangesConfig,
        tools=("ai-edge-litert", "numpy", "onnxruntime"),
    )

    def run(
        self, parents: Mapping[str, Artefact], config: RangesConfig, context: Context
    ) -> StageOutput:
        source, images = parents["source"].facts, open_images(parents["images"])
        rows = calibration_rows(parents["calibration"], images)
        observer = str(parents["calibration"].facts["observer"])
        backend = BACKENDS.get(source["backend"])()
        read = backend.read_tensors(parents["source"].file(source["file"]))
        with context.progress.task(f"measuring ranges of {source['target']}", len(rows)) as advance:

            def pictures() -> Iterator[NDArray[np.uint8]]:
                for row in rows:
                    yield images.pixels[row][np.newaxis]
                    advance(1)

            ranges = measure_ranges(read, pictures(), observer)
        learned: Ranges = {}
        if "model" in parents:
            learned = read_learned(parents["model"].file(LEARNED))
            image = images.pixels[rows[0]][np.newaxis]
            layers = layer_values(parents["model"].file(MODEL_FILE), list(learned), image)
            ranges = apply_learned(ranges, learned, match_tensors(layers, read(image)))
        write_ranges(context.directory / FILE, ranges)
        return StageOutput(
            {
                "learned": len(learned),
                "source": source["target"],
                "observer": observer,
                "images": len(rows),
                "tensors": len(ranges),
            }
        )


def read_measured(artefact: Artefact) -> dict[str, TensorRange]:
    """Return tensor name -> range."""
    return read_ranges(artefact.file(FILE))
