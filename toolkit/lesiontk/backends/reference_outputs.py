"""Reference outputs of models and engines, stored for the engines derived from them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lesiontk.backends import open_engine
from lesiontk.backends.backend import dump_spec, parse_spec
from lesiontk.data.images import open_images
from lesiontk.evaluate.golden_images import golden_images
from lesiontk.records import MODEL_FILE, Artefact, EngineSpec

REFERENCE_OUTPUTS = "reference_outputs.npz"
"""Files: the rows of the images, an engine's outputs for them, and its description."""


@dataclass(frozen=True, slots=True)
class ReferenceOutputs:
    """An engine's description, and its probabilities [N, C] for images and golden images."""

    spec: EngineSpec
    outputs: NDArray[np.float32]
    golden: NDArray[np.float32]


def engine_file(artefact: Artefact) -> Path:
    """Return the file of a model or engine that `open_engine` opens."""
    return artefact.file(MODEL_FILE if artefact.kind == "model" else artefact.facts["file"])


def run_engine(path: Path, pixels: NDArray[np.uint8], threads: int) -> ReferenceOutputs:
    """Return the outputs of a model or engine for `pixels` and for the golden images.

    The outputs are not checked: verification judges them.
    """
    with open_engine(path, threads=threads) as engine:
        pictures = golden_images(engine.spec.preprocessing.image_size)
        return ReferenceOutputs(engine.spec, engine.infer(pixels), engine.infer(pictures))


def write_reference_outputs(
    outputs: ReferenceOutputs, rows: NDArray[np.int64], folder: Path
) -> None:
    """Store the outputs for these rows of the images beside the engine."""
    np.savez(
        folder / REFERENCE_OUTPUTS,
        rows=rows,
        outputs=outputs.outputs,
        golden=outputs.golden,
        spec=np.array(dump_spec(outputs.spec)),
    )


def load_or_run(
    source: Artefact, images: Artefact, rows: NDArray[np.int64], threads: int
) -> ReferenceOutputs:
    """Return the source's outputs for these rows, stored or computed now.

    Inference of a large network takes minutes, and several engines are derived from it.
    """
    path = engine_file(source)
    same = source.manifest.parents["images"].content == images.content
    if same and REFERENCE_OUTPUTS in source.manifest.files:
        with np.load(source.file(REFERENCE_OUTPUTS)) as kept:
            if "spec" in kept and np.isin(rows, kept["rows"]).all():
                order = np.argsort(kept["rows"])
                found = order[np.searchsorted(kept["rows"], rows, sorter=order)]
                spec = parse_spec(str(kept["spec"]), path)
                return ReferenceOutputs(spec, kept["outputs"][found], kept["golden"])
    return run_engine(path, open_images(images).pixels[rows], threads)
