"""Stage: a model, or an engine of another precision, to a verified engine."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from lesiontk.backends import BACKENDS, open_engine, parse_target
from lesiontk.backends.backend import QuantizationPlan
from lesiontk.calibration.calibrate_stage import calibration_rows
from lesiontk.data.images import ImageSet, open_images
from lesiontk.errors import GateFailedError
from lesiontk.evaluate.verification import Verification, verify_outputs
from lesiontk.recipe import VerifyRule
from lesiontk.records import Artefact
from lesiontk.stage import Context, Stage, StageConfig, StageInfo, StageOutput


class ConvertConfig(StageConfig):
    """The target ``backend:precision`` and how near to its parent it must be."""

    target: str
    verify: VerifyRule


class ConvertStage(Stage):
    """Produces an engine file that carries its description, and how it compares with its parent."""

    info: ClassVar[StageInfo] = StageInfo(
        name="convert",
        version=1,
        accepts={"source": "model|engine", "images": "images", "calibration": "calibration"},
        produces="engine",
        config=ConvertConfig,
        tools=(
            "ai-edge-litert",
            "ai-edge-quantizer",
            "onnx",
            "onnxruntime",
            "tensorflow",
            "tf2onnx",
        ),
    )

    def run(
        self, parents: Mapping[str, Artefact], config: ConvertConfig, context: Context
    ) -> StageOutput:
        name, precision = parse_target(config.target)
        backend = BACKENDS.get(name)()
        source = engine_file(parents["source"])
        images = open_images(parents["images"])
        plan = None
        if "calibration" in parents:
            listed = calibration_rows(parents["calibration"], images)
            observer = str(parents["calibration"].facts["observer"])
            plan = QuantizationPlan(images.pixels[listed], observer)
        rows = verification_rows(images, config.verify)
        with open_engine(source, threads=context.threads) as parent:
            spec = replace(parent.spec, backend=name, precision=precision)
            expected = parent.predict(images.pixels[rows])
        with context.progress.task(f"converting to {config.target}", None):
            record = backend.convert(source, precision, spec, plan, context.directory)
        path = context.directory / record.file
        verification = verify_engine(
            expected, path, images.pixels[rows], config.verify, context.threads
        )
        evidence = {
            "target": config.target,
            "float_operators": list(record.float_operators),
            "structure": asdict(backend.inspect(path)),
            "verification": verification.to_json(),
        }
        (context.directory / "verification.json").write_text(json.dumps(evidence, indent=1) + "\n")
        if not verification.passed:
            raise GateFailedError(
                f"{config.target} is not the model it was made from: "
                f"{verification.describe_failures()} (n = {verification.n} validation images). The "
                "engine is kept beside failed.json; try another calibration.observer or more "
                "calibration.images."
            )
        return StageOutput(
            {
                "file": record.file,
                "backend": name,
                "precision": precision,
                "size_bytes": path.stat().st_size,
                "labels": list(spec.labels),
                "split_hash": spec.split_hash,
                **evidence,
            }
        )


def engine_file(artefact: Artefact) -> Path:
    """Return the file of a model or engine that `open_engine` opens."""
    return artefact.file("model.keras" if artefact.kind == "model" else artefact.facts["file"])


def verification_rows(images: ImageSet, rule: VerifyRule) -> NDArray[np.int64]:
    """Return the validation images on which an engine is compared, even over the classes."""
    return images.draw_stratified("validation", rule.images, seed=0)


def verify_engine(
    expected: NDArray[np.float32],
    child: Path,
    pixels: NDArray[np.uint8],
    rule: VerifyRule,
    threads: int,
) -> Verification:
    """Compare an engine file with its parent's probabilities `expected` of the same pixels."""
    with open_engine(child, threads=threads) as engine:
        received = engine.predict(pixels)
        precision = engine.spec.precision
        backend = BACKENDS.get(engine.spec.backend)()
    return verify_outputs(
        expected,
        received,
        precision=precision,
        int8_weight_share=backend.inspect(child).int8_weight_share,
        rule=rule,
    )
