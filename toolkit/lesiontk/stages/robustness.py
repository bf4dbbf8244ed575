"""Stage: an engine and its full-precision parent on corrupted test images.

Nothing is chosen from these images: the thresholds are those frozen on validation.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator

from lesiontk.backends import open_engine
from lesiontk.backends.backend import Engine
from lesiontk.backends.reference_outputs import engine_file
from lesiontk.data.corruptions import CORRUPTIONS, SEVERITIES, check_corruptions, corrupt_image
from lesiontk.data.dealt_split import DealtSplit
from lesiontk.data.image_table import SplitImage
from lesiontk.data.images import write_rows
from lesiontk.data.preprocess import preprocess_image
from lesiontk.data.reader import ImageReader, decode_all
from lesiontk.data.similarity import hash_pixels
from lesiontk.data.subset import draw_lesions
from lesiontk.document import plain_value, write_record
from lesiontk.errors import DataError
from lesiontk.evaluate.robustness import (
    CorruptedResult,
    PairedOutputs,
    Robustness,
    estimate_excess,
)
from lesiontk.files.hashing import hash_document
from lesiontk.recipe import EvaluateRule
from lesiontk.records import Artefact, Preprocessing
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
from lesiontk.stages.engine_tools import tools_of_runtime
from lesiontk.stages.evaluate import read_operating_point
from lesiontk.stages.inspect_images import data_root
from lesiontk.stages.known_splits import check_own_split
from lesiontk.stages.split import list_records, read_split

DOCUMENT, PREDICTIONS = "robustness.json", "predictions.csv"
SUBSET = "test"
CLEAN = "clean"
KEPT_EVERY = 20
"""Images after which the predictions are kept for a process that continues a killed one."""

Outputs = NDArray[np.float32]
Condition = tuple[str, int]


class RobustnessConfig(StageConfig):
    """The engine, the number of test images, and the corruptions."""

    path: str | None = Field(None, exclude=True)
    target: str
    images: int = Field(ge=20)
    corruptions: tuple[str, ...] = ()
    seed: int = 0
    statistics: EvaluateRule = EvaluateRule()

    @field_validator("corruptions")
    @classmethod
    def _complete(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        check_corruptions(names)
        return tuple(name for name in CORRUPTIONS if name in names or not names)


class RobustnessStage(Stage):
    """Produces ``robustness.json`` and the predictions of both engines for each picture.

    A picture is corrupted as it was taken, then cropped, resized and enhanced for each engine.
    """

    info: ClassVar[StageInfo] = StageInfo(
        name="robustness",
        version=2,
        accepts={
            "engine": "engine",
            "evaluation": "evaluation",
            "split": "split",
            "dataset": "dataset",
        },
        produces="robustness",
        config=RobustnessConfig,
        schema_version=Robustness.SCHEMA,
        tools=("numpy", "scipy", "Pillow", "opencv-python-headless"),
    )

    def external_inputs(self, config: RobustnessConfig) -> dict[str, str]:
        """The strengths: corruptions of a plugin may change them."""
        strengths = {name: CORRUPTIONS.get(name).strengths for name in config.corruptions}
        return {"strengths": hash_document(plain_value(strengths))}

    def list_tools(
        self, config: RobustnessConfig, parents: Mapping[str, Artefact]
    ) -> tuple[str, ...]:
        engines = collect_engines(parents, "engine").values()
        return (*self.info.tools, *tools_of_runtime(engines))

    def run(
        self, parents: Mapping[str, Artefact], config: RobustnessConfig, context: Context
    ) -> StageOutput:
        engines = collect_engines(parents, "engine")
        evaluations = collect_engines(parents, "evaluation")
        points = {name: read_operating_point(a) for name, a in evaluations.items()}
        target = EngineName(config.target)
        parent = find_reference(target, engines)
        if parent is None:
            raise DataError(f"{target} has no full-precision parent among {', '.join(engines)}.")
        split = parents["split"].read_facts(DealtSplit)
        rows = [row for row in read_split(parents["split"]) if row.subset == SUBSET]
        places = draw_lesions(
            [row.label for row in rows], [row.group for row in rows], config.images, config.seed
        )
        chosen = [rows[place] for place in places]
        conditions = list_conditions(config.corruptions)
        files = [engine_file(engines[name]) for name in (parent, target)]
        root = data_root(config.path, parents)
        before, after = _predict(root, files, split.split_hash, chosen, conditions, context)
        outputs = PairedOutputs(
            y_true=np.array([split.task.labels.index(r.label) for r in chosen], dtype=np.int64),
            parent=before,
            engine=after,
            labels=split.task.labels,
            groups=[row.group for row in chosen],
            points=(points[parent], points[target]),
        )
        found = assess_outputs(
            outputs,
            conditions,
            target.target,
            parent,
            available=len(rows),
            split_hash=split.split_hash,
            rule=config.statistics,
        )
        write_record(context.directory / DOCUMENT, found)
        _write_predictions(
            context.directory / PREDICTIONS, chosen, conditions, split.task.labels, outputs
        )
        return StageOutput({"target": found.target, "n": found.n, "split_hash": found.split_hash})


def read_robustness(artefact: Artefact) -> Robustness:
    """Return the results. Raises `DataError` for those of another version of lesiontk."""
    return artefact.read(DOCUMENT, Robustness)


def list_conditions(corruptions: Iterable[str]) -> list[Condition]:
    """Return the clean image, and each corruption with its severities."""
    return [(CLEAN, 0), *((name, severity) for name in corruptions for severity in SEVERITIES)]


def assess_outputs(
    outputs: PairedOutputs,
    conditions: Sequence[Condition],
    target: str,
    parent: EngineName,
    *,
    available: int,
    split_hash: str,
    rule: EvaluateRule,
) -> Robustness:
    """Return what the conditions, of `list_conditions`, cost an engine and its parent.

    `available` is the number of test images of which those of the outputs were drawn. Raises
    `DataError` for bad outputs.
    """
    clean, losses, overall = estimate_excess(
        outputs, resamples=rule.resamples, confidence=rule.confidence, seed=rule.seed
    )
    counts = np.bincount(outputs.y_true, minlength=len(outputs.labels))
    return Robustness(
        target=target,
        parent=parent.target,
        reference=parent.reference,
        n=len(outputs.y_true),
        lesions=len(set(outputs.groups)),
        available=available,
        images=dict(zip(outputs.labels, counts.tolist(), strict=True)),
        split_hash=split_hash,
        clean=clean,
        results=tuple(
            CorruptedResult(name, severity, CORRUPTIONS.get(name).describe(severity), loss)
            for (name, severity), loss in zip(conditions[1:], losses, strict=True)
        ),
        overall=overall,
        confidence=rule.confidence,
        resamples=rule.resamples,
        seed=rule.seed,
    )


def _predict(
    root: Path,
    files: Sequence[Path],
    split_hash: str,
    rows: Sequence[SplitImage],
    conditions: Sequence[Condition],
    context: Context,
) -> list[Outputs]:
    """Return the probabilities [K, N, C] of each engine file under the K conditions.

    Unfinished work continues from the predictions in the scratch folder.
    """
    kept = context.scratch / "predictions.npy"
    done: list[NDArray[np.float32]] = list(np.load(kept)) if kept.exists() else []
    what = f"predicting {len(conditions) - 1} corruptions of each test image"
    with (
        open_engine(files[0], threads=context.threads) as parent,
        open_engine(files[1], threads=context.threads) as engine,
        ImageReader(root) as reader,
        context.progress.task(what, len(rows)) as advance,
    ):
        engines = (parent, engine)
        for one in engines:
            check_own_split(
                f"the {one.spec.precision} engine of {one.spec.recipe}",
                one.spec.split_hash,
                split_hash,
            )
        advance(len(done))
        rest = rows[len(done) :]
        pictures = decode_all(
            reader, list_records(rest), workers=context.threads, transform=lambda picture: picture
        )
        for picture, row in zip(pictures, rest, strict=True):
            if hash_pixels(picture) != row.pixel_sha256:
                raise DataError(
                    f"{row.location} has other pixels than when the data was split; expected the "
                    "images of the split: restore them, or name their folder with --data DIR."
                )
            done.append(predict_conditions(engines, picture, row.image_id, conditions))
            if len(done) % KEPT_EVERY == 0:
                _keep(kept, done)
            advance(1)
    both = np.stack(done, axis=2)
    return [both[0], both[1]]


def predict_conditions(
    engines: Sequence[Engine],
    picture: NDArray[np.uint8],
    image_id: str,
    conditions: Sequence[Condition],
) -> Outputs:
    """Return the probabilities [E, K, C] of E engines for a picture under K conditions."""
    sizes = [engine.spec.preprocessing for engine in engines]
    inputs = _make_inputs(picture, image_id, conditions, sizes)
    return np.stack([engine.predict(x) for engine, x in zip(engines, inputs, strict=True)])


def _make_inputs(
    picture: NDArray[np.uint8],
    image_id: str,
    conditions: Sequence[Condition],
    preprocessings: Sequence[Preprocessing],
) -> list[NDArray[np.uint8]]:
    """Return the inputs [K, S, S, 3] of each preprocessing under the conditions."""
    made: dict[Preprocessing, list[NDArray[np.uint8]]] = {each: [] for each in preprocessings}
    for name, severity in conditions:  # one at a time: a camera's picture has 70 MB
        seen = picture if name == CLEAN else corrupt_image(picture, name, severity, image_id)
        for preprocessing, inputs in made.items():
            inputs.append(preprocess_image(seen, preprocessing))
    return [np.stack(made[preprocessing]) for preprocessing in preprocessings]


def _keep(path: Path, done: Sequence[NDArray[np.float32]]) -> None:
    """Write the predictions so far; a killed process leaves the earlier file whole."""
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as stream:
        np.save(stream, np.stack(done))
    temporary.replace(path)


def _write_predictions(
    path: Path,
    rows: Sequence[SplitImage],
    conditions: Sequence[Condition],
    labels: Sequence[str],
    outputs: PairedOutputs,
) -> None:
    """Write a row per image and condition; nine digits restore the exact float32."""
    columns = [f"{who}_{label}" for who in ("parent", "engine") for label in labels]
    write_rows(
        path,
        [
            {
                "image_id": row.image_id,
                "group": row.group,
                "label": row.label,
                "corruption": name,
                "severity": severity,
                **{
                    column: f"{p:.9g}"
                    for column, p in zip(
                        columns, [*outputs.parent[k, n], *outputs.engine[k, n]], strict=True
                    )
                },
            }
            for n, row in enumerate(rows)
            for k, (name, severity) in enumerate(conditions)
        ],
        ("image_id", "group", "label", "corruption", "severity", *columns),
    )
