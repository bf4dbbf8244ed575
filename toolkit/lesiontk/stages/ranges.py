"""Stage: the ranges of a float engine's tensors, measured once for all derived engines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from lesiontk.backends import BACKENDS
from lesiontk.backends.engine_facts import EngineFacts
from lesiontk.backends.keras.backend import KerasBackend, layer_values
from lesiontk.backends.learned_ranges import (
    LEARNED,
    apply_learned,
    match_tensors,
    read_learned,
)
from lesiontk.backends.reference_outputs import engine_file
from lesiontk.backends.tensor_matching import find_same
from lesiontk.calibration.drawn_list import DrawnList
from lesiontk.calibration.ranges import (
    MeasuredRanges,
    Ranges,
    TensorRange,
    TensorReader,
    measure_ranges,
    read_ranges,
    write_ranges,
)
from lesiontk.data.images import open_images
from lesiontk.records import MODEL_FILE, Artefact
from lesiontk.stage import Context, Stage, StageConfig, StageInfo, StageOutput
from lesiontk.stages.calibrate import calibration_rows
from lesiontk.stages.engine_tools import tools_of_runtime

FILE = "ranges.csv"
COMPARED = 4
"""Number of images on which a tensor must equal a known one to take its range."""


class RangesConfig(StageConfig):
    """The stage has no options: images and observer are those of the list."""


class RangesStage(Stage):
    """Produces ``ranges.csv``: the extremes of each tensor, and the observer's range.

    The learned ranges of a model from quantization-aware training replace those of the observer. If
    the engine's graph is equivalent to that of another engine, `origin`, then `known` contains the
    ranges of that engine: a tensor with the same values has the same range, and only the others are
    measured. The key contains the engine's content, the list and its observer, so that another
    precision or back end derived from the same engine reuses the ranges.
    """

    info: ClassVar[StageInfo] = StageInfo(
        name="ranges",
        version=2,
        accepts={
            "source": "engine",
            "images": "images",
            "calibration": "calibration",
            "model": "model",
            "known": "ranges",
            "origin": "engine",
        },
        produces="ranges",
        config=RangesConfig,
        schema_version=MeasuredRanges.SCHEMA,
        tools=("numpy",),
    )

    def list_tools(self, config: RangesConfig, parents: Mapping[str, Artefact]) -> tuple[str, ...]:
        engines = [parents[role] for role in ("source", "origin") if role in parents]
        learned = KerasBackend().list_runtime_tools() if "model" in parents else ()
        return (*self.info.tools, *tools_of_runtime(engines), *learned)

    def run(
        self, parents: Mapping[str, Artefact], config: RangesConfig, context: Context
    ) -> StageOutput:
        source, images = parents["source"].read_facts(EngineFacts), open_images(parents["images"])
        rows = calibration_rows(parents["calibration"], images)
        observer = parents["calibration"].read_facts(DrawnList).observer
        read = _open_tensors(parents["source"])
        pixels = images.pixels[rows]
        known: dict[str, TensorRange] = {}
        if "known" in parents:
            known = carry_ranges(
                read_measured(parents["known"]),
                _open_tensors(parents["origin"]),
                read,
                pixels[:: max(1, len(pixels) // COMPARED)][:COMPARED],
            )
        with context.progress.task(f"measuring ranges of {source.target}", len(rows)) as advance:

            def iterate_images() -> Iterator[NDArray[np.uint8]]:
                for image in pixels:
                    yield image[np.newaxis]
                    advance(1)

            ranges = measure_rest(known, read, iterate_images(), observer)
        learned: Ranges = {}
        if "model" in parents:
            learned, moving = read_learned(parents["model"].file(LEARNED))
            image = images.pixels[rows[0]][np.newaxis]
            layers = layer_values(parents["model"].file(MODEL_FILE), list(learned), image)
            ranges = apply_learned(ranges, learned, match_tensors(layers, read(image), moving))
        write_ranges(context.directory / FILE, ranges)
        facts = MeasuredRanges(
            learned=len(learned),
            source=source.target,
            observer=observer,
            images=len(rows),
            tensors=len(ranges),
            carried=len(known),
        )
        return StageOutput(facts.to_document())


def _open_tensors(engine: Artefact) -> TensorReader:
    return BACKENDS.get(engine.read_facts(EngineFacts).backend)().read_tensors(engine_file(engine))


def carry_ranges(
    known: Mapping[str, TensorRange],
    read_origin: TensorReader,
    read: TensorReader,
    images: NDArray[np.uint8],
) -> dict[str, TensorRange]:
    """Return tensor -> range for the tensors that equal a known tensor on all of the images."""
    iterate_images = [image[np.newaxis] for image in images]
    same = find_same(map(read_origin, iterate_images), map(read, iterate_images))
    return {name: known[origin] for name, origin in same.items() if origin in known}


def measure_rest(
    known: Mapping[str, TensorRange],
    read: TensorReader,
    images: Iterator[NDArray[np.uint8]],
    observer: str,
) -> dict[str, TensorRange]:
    """Return the known ranges and those of all other tensors, in the order of the graph."""
    if not known:
        return measure_ranges(read, images, observer)
    first = next(images)
    names = list(read(first))
    if set(names) <= known.keys():
        return {name: known[name] for name in names}

    def read_rest(image: NDArray[np.uint8]) -> Mapping[str, NDArray[Any]]:
        return {name: values for name, values in read(image).items() if name not in known}

    measured = measure_ranges(read_rest, chain([first], images), observer)
    return {name: (known if name in known else measured)[name] for name in names}


def read_measured(artefact: Artefact) -> dict[str, TensorRange]:
    """Return tensor name -> range."""
    return read_ranges(artefact.file(FILE))
