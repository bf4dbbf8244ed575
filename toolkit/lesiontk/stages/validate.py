"""Stage: an engine's predictions on the validation images, without reading the test images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from lesiontk.backends import open_engine
from lesiontk.backends.engine_facts import EngineFacts
from lesiontk.backends.reference_outputs import engine_file
from lesiontk.data.images import open_images
from lesiontk.records import Artefact
from lesiontk.stage import Context, Stage, StageConfig, StageInfo, StageOutput
from lesiontk.stages.engine_tools import tools_of_runtime
from lesiontk.stages.evaluate import VALIDATION_PREDICTIONS, predict_rows, write_predictions
from lesiontk.stages.known_splits import check_own_split


class ValidateConfig(StageConfig):
    """Nothing varies."""


class ValidateStage(Stage):
    """Produces a row of probabilities for each validation image, as `EvaluateStage` does."""

    info: ClassVar[StageInfo] = StageInfo(
        name="validate",
        version=1,
        accepts={"engine": "engine", "images": "images"},
        produces="validation",
        config=ValidateConfig,
        tools=("numpy",),
    )

    def list_tools(
        self, config: ValidateConfig, parents: Mapping[str, Artefact]
    ) -> tuple[str, ...]:
        return (*self.info.tools, *tools_of_runtime([parents["engine"]]))

    def run(
        self, parents: Mapping[str, Artefact], config: ValidateConfig, context: Context
    ) -> StageOutput:
        images = open_images(parents["images"])
        rows = images.indices("validation")
        target = parents["engine"].read_facts(EngineFacts).target
        with open_engine(engine_file(parents["engine"]), threads=context.threads) as engine:
            check_own_split(target, engine.spec.split_hash, images.split_hash)
            outputs = predict_rows(
                engine, images, rows, f"evaluating {target}: validation", context
            )
        write_predictions(context.directory / VALIDATION_PREDICTIONS, images, rows, outputs, {})
        return StageOutput({"target": target, "split_hash": images.split_hash, "n": len(rows)})
