"""Stage: checks of an engine's input, fitted on its own outputs, and what they refuse."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from lesiontk.backends import find_backend, open_engine
from lesiontk.backends.backend import Engine
from lesiontk.backends.engine_facts import EngineFacts
from lesiontk.backends.reference_outputs import engine_file
from lesiontk.data.enhance import enhance_image
from lesiontk.data.images import ImageSet, open_images
from lesiontk.data.synthetic.other_images import OTHER_IMAGES, draw_other_images
from lesiontk.errors import DataError
from lesiontk.evaluate.fit_input_checks import (
    AT_FALSE_REFUSALS,
    FamilyRefusals,
    InputChecks,
    choose_domain_threshold,
    count_class_refusals,
    fit_domain,
    fit_quality,
    measure_all,
    measure_auroc,
    refuse_quality,
    score_signals,
)
from lesiontk.evaluate.input_checks import ARRAY_NAMES, ARRAYS, DOCUMENT, DomainScore
from lesiontk.evaluate.signals import Signals
from lesiontk.records import Artefact, Preprocessing
from lesiontk.stage import Context, Stage, StageConfig, StageInfo, StageOutput
from lesiontk.stages.engine_tools import tools_of_runtime
from lesiontk.stages.known_splits import check_own_split

UNSEEN = ("photograph",)
"""Families that have no part in the choice of the score."""
BATCH = 16


class InputChecksConfig(StageConfig):
    """How often a dermoscopic image may be refused, and the images that are used."""

    quality_rate: float = Field(
        0.01, gt=0, lt=0.5, description="share of training images beyond the quality bounds"
    )
    domain_rate: float = Field(
        0.02, gt=0, lt=0.5, description="share of validation images refused as out of domain"
    )
    class_images: int = Field(
        500, ge=2, description="training images of each class, at most, for the class means"
    )
    other_images: int = Field(
        150, ge=10, description="of each kind of picture that is not dermoscopic"
    )
    seed: int = Field(1, ge=0, lt=2**32, description="seed of the pictures and of the choice")


class InputChecksStage(Stage):
    """Produces the engine with features as further outputs, the checks, and what they refuse.

    The engine's probabilities stay the same bits, which is checked on the validation images.
    """

    info: ClassVar[StageInfo] = StageInfo(
        name="input_checks",
        version=2,
        accepts={"engine": "engine", "images": "images"},
        produces="input_checks",
        config=InputChecksConfig,
        schema_version=InputChecks.SCHEMA,
        tools=("numpy", "scipy", "Pillow", "scikit-learn", "matplotlib"),
    )

    def list_tools(
        self, config: InputChecksConfig, parents: Mapping[str, Artefact]
    ) -> tuple[str, ...]:
        return (*self.info.tools, *tools_of_runtime([parents["engine"]]))

    def run(
        self, parents: Mapping[str, Artefact], config: InputChecksConfig, context: Context
    ) -> StageOutput:
        source = engine_file(parents["engine"])
        target = parents["engine"].read_facts(EngineFacts).target
        images = open_images(parents["images"])
        facts = fit_input_checks(source, target, images, config, context)
        return StageOutput(facts.to_document())


def fit_input_checks(
    source: Path, target: str, images: ImageSet, config: InputChecksConfig, context: Context
) -> InputChecks:
    """Write the engine with features, and its checks, into the context's folder.

    Raises `DataError` for an engine of another split, or whose probabilities change.
    """
    path = context.directory / source.name
    backend = find_backend(source)()
    content, _ = backend.split_record(source.read_bytes())
    path.write_bytes(backend.add_signal_outputs(content))
    rows = {
        "train": _draw_balanced(images, config),
        "validation": images.indices("validation"),
        "test": images.indices("test"),
    }
    draw = partial(_draw_family, images.preprocessing, config.other_images)
    chosen_on = {f: draw(f, config.seed) for f in OTHER_IMAGES if f not in UNSEEN}
    fresh = {family: draw(family, config.seed + 1) for family in OTHER_IMAGES}
    total = sum(map(len, rows.values())) + sum(map(len, (*chosen_on.values(), *fresh.values())))
    with (
        context.progress.task(f"checking inputs of {target}", total) as advance,
        open_engine(source, threads=context.threads) as plain,
        open_engine(path, threads=context.threads) as engine,
    ):
        check_own_split(target, engine.spec.split_hash, images.split_hash)
        infer = partial(_infer, engine, advance)
        of = {subset: infer(images.pixels[chosen]) for subset, chosen in rows.items()}
        known = plain.infer(np.asarray(images.pixels[rows["validation"]]))
        if not np.array_equal(of["validation"].probabilities, known):
            raise DataError(
                "the engine with features as outputs returns other probabilities than the engine; "
                "expected the same bits. Report this as a fault of the back end."
            )
        known_others = {family: infer(pictures) for family, pictures in chosen_on.items()}
        others = {family: infer(pictures) for family, pictures in fresh.items()}
    measures = {subset: measure_all(images.pixels[chosen]) for subset, chosen in rows.items()}
    bounds = fit_quality(measures["train"], images.preprocessing.image_size, config.quality_rate)
    fitted = fit_domain(of["train"], images.targets[rows["train"]], of["validation"], known_others)
    scores = {name: score_signals(fitted.domain, found) for name, found in of.items()}
    threshold = choose_domain_threshold(scores["validation"], config.domain_rate)
    at_5 = choose_domain_threshold(scores["validation"], AT_FALSE_REFUSALS)
    poor = {name: refuse_quality(found, bounds) for name, found in measures.items()}
    write_checks(context.directory, content, bounds, fitted.domain, threshold)
    families = []
    for family, found in others.items():
        faults = refuse_quality(measure_all(fresh[family]), bounds)
        values = score_signals(fitted.domain, found)
        families.append(
            FamilyRefusals(
                family=family,
                n=len(values),
                poor_quality=int(faults.sum()),
                out_of_domain=int(((values > threshold) & ~faults).sum()),
                auroc=measure_auroc(scores["test"], values),
                at_5=float((values > at_5).mean()),
                chosen_on=family in chosen_on,
            )
        )
    return InputChecks(
        target=target,
        file=path.name,
        images={subset: len(chosen) for subset, chosen in rows.items()},
        quality=bounds,
        score=fitted.name,
        threshold=threshold,
        candidates=fitted.candidates,
        false_refusals={
            "poor_quality": float(poor["validation"].mean()),
            "out_of_domain": float((scores["validation"] > threshold).mean()),
        },
        classes=count_class_refusals(
            images.labels,
            images.targets[rows["test"]],
            poor["test"],
            scores["test"] > threshold,
        ),
        families=tuple(families),
    )


def _draw_balanced(images: ImageSet, config: InputChecksConfig) -> NDArray[np.int64]:
    """Return training rows, at most `class_images` of each class."""
    rng = np.random.default_rng(config.seed)
    rows = rng.permutation(images.indices("train"))
    targets = images.targets[rows]
    chosen = [rows[targets == label][: config.class_images] for label in range(len(images.labels))]
    return np.sort(np.concatenate(chosen))


def _draw_family(
    preprocessing: Preprocessing, count: int, family: str, seed: int
) -> NDArray[np.uint8]:
    size = preprocessing.image_size
    drawn = draw_other_images(family, count, size, seed)
    return np.stack([enhance_image(picture, preprocessing.enhance) for picture in drawn])


def _infer(engine: Engine, advance: Callable[[int], None], pixels: NDArray[np.uint8]) -> Signals:
    parts: list[Signals] = []
    for start in range(0, len(pixels), BATCH):
        batch = np.asarray(pixels[start : start + BATCH])
        parts.append(engine.predict_signals(batch))
        advance(len(batch))
    return Signals.join(parts)


def write_checks(
    folder: Path,
    content: bytes,
    bounds: Mapping[str, Mapping[str, float]],
    domain: DomainScore,
    threshold: float,
) -> None:
    """Write the document and, beside it, the arrays of the score as little-endian float32.

    `content` is the engine as it was converted; its hash says what the checks belong to.
    """
    fitted = domain.distance
    arrays = {} if fitted is None else {name: getattr(fitted, name) for name in ARRAY_NAMES}
    numbers = {} if fitted is None else {
        "unit_length": fitted.unit_length, "rest_variance": fitted.rest_variance
    }  # fmt: skip
    document = {
        "engine_sha256": hashlib.sha256(content).hexdigest(),
        "quality": bounds,
        "domain": {
            "score": domain.kind,
            **numbers,
            "threshold": threshold,
            "arrays": {name: list(value.shape) for name, value in arrays.items()},
        },
    }
    (folder / DOCUMENT).write_text(json.dumps(document, indent=1) + "\n")
    (folder / ARRAYS).write_bytes(
        b"".join(np.ascontiguousarray(value, "<f4").tobytes() for value in arrays.values())
    )


def read_input_checks(artefact: Artefact) -> InputChecks:
    """Return what the checks are and what they refuse."""
    return artefact.read_facts(InputChecks)
