"""Stage: the dependence of an int8 engine on the choice of its calibration images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from lesiontk.backends import BACKENDS, parse_target
from lesiontk.backends.backend import QuantizationPlan
from lesiontk.backends.reference_outputs import engine_file, run_engine
from lesiontk.calibration.draw import prove_disjoint
from lesiontk.calibration.stability import DrawScores, FurtherDraw, OwnDraw, Stability
from lesiontk.data.images import open_images
from lesiontk.document import read_table, write_table
from lesiontk.evaluate.comparison import measure_agreement
from lesiontk.recipe import CalibrateConfig, QuantizeRule
from lesiontk.records import Artefact
from lesiontk.stage import Context, Stage, StageConfig, StageInfo, StageOutput
from lesiontk.stages.calibrate import (
    calibration_rows,
    describe_cover,
    draw_covering,
)
from lesiontk.stages.engine_tools import tools_of_conversion
from lesiontk.train.loop import score_probabilities

TABLE = "draws.csv"
"""Seed, images shared with the recipe's draw, agreement, drift and scores."""


class StabilityConfig(StageConfig):
    """The target, the number of further draws, and their calibration and quantization."""

    target: str
    draws: int
    calibration: CalibrateConfig
    quantize: QuantizeRule


class StabilityStage(Stage):
    """Produces a row for each further draw, whose engine is compared with the recipe's.

    Both run on the whole validation subset; the further engines are not kept.
    """

    info: ClassVar[StageInfo] = StageInfo(
        name="stability",
        version=1,
        accepts={
            "source": "engine",
            "engine": "engine",
            "images": "images",
            "inspection": "inspection",
            "calibration": "calibration",
        },
        produces="stability",
        config=StabilityConfig,
        schema_version=Stability.SCHEMA,
        tools=("numpy",),
    )

    def list_tools(
        self, config: StabilityConfig, parents: Mapping[str, Artefact]
    ) -> tuple[str, ...]:
        return (*self.info.tools, *tools_of_conversion(config.target))

    def run(
        self, parents: Mapping[str, Artefact], config: StabilityConfig, context: Context
    ) -> StageOutput:
        name, precision = parse_target(config.target)
        backend = BACKENDS.get(name)()
        images = open_images(parents["images"])
        source, own = engine_file(parents["source"]), engine_file(parents["engine"])
        drawn = set(calibration_rows(parents["calibration"], images).tolist())
        pixels = images.pixels[images.indices("validation")]
        expected = run_engine(own, pixels, context.threads)
        cover = describe_cover(images, parents["inspection"])
        info = backend.info.precisions[precision]
        rows: list[FurtherDraw] = []
        with context.progress.task(f"calibrating {config.target} again", config.draws) as advance:
            for number in range(1, config.draws + 1):
                seed = config.calibration.seed + number
                changes = {"seed": seed, "list": None, "images": len(drawn)}
                drawing = config.calibration.model_copy(update=changes)
                listed = draw_covering(images, cover, drawing)
                prove_disjoint(images, listed)
                plan = QuantizationPlan(
                    images.pixels[listed],
                    config.calibration.observer,
                    correct_bias=config.quantize.correct_bias,
                    reduce_range=config.quantize.reduce_range and info.saturates,
                )
                record = backend.convert(source, precision, expected.spec, plan, context.scratch)
                received = run_engine(context.scratch / record.file, pixels, context.threads)
                agreement = measure_agreement(expected.outputs, received.outputs)
                scores = score_probabilities(received.outputs, images)
                rows.append(
                    FurtherDraw(
                        seed=seed,
                        shared=len(drawn & set(listed.tolist())),
                        top1_agreement=agreement.top1_agreement,
                        mean_drift=agreement.mean_absolute_drift,
                        balanced_accuracy=scores.balanced_accuracy,
                        critical_recall=scores.metrics[f"recall[{images.critical}]"],
                    )
                )
                advance(1)
        write_table(context.directory / TABLE, FurtherDraw, rows)
        own_scores = score_probabilities(expected.outputs, images)
        recipes = OwnDraw(
            None if config.calibration.list else config.calibration.seed,
            own_scores.balanced_accuracy,
            own_scores.metrics[f"recall[{images.critical}]"],
        )
        drawings: list[OwnDraw | FurtherDraw] = [recipes, *rows]
        facts = Stability(
            target=config.target,
            draws=config.draws,
            images=len(drawn),
            validation=len(pixels),
            own=recipes,
            spread=DrawScores(
                float(np.ptp([row.balanced_accuracy for row in drawings])),
                float(np.ptp([row.critical_recall for row in drawings])),
            ),
            least_agreement=min(row.top1_agreement for row in rows),
        )
        return StageOutput(facts.to_document())


def read_draws(artefact: Artefact) -> list[FurtherDraw]:
    """Return the rows of `TABLE`."""
    return read_table(artefact.file(TABLE), FurtherDraw)
