"""Stage: the procedural data set, used without other data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from lesiontk.data.synthetic.dataset import write_synthetic_dataset
from lesiontk.recipe import SynthesizeConfig
from lesiontk.records import Artefact
from lesiontk.stage import Context, Stage, StageInfo, StageOutput


class SynthesizeStage(Stage):
    """Produces a folder in the layout of HAM10000."""

    info: ClassVar[StageInfo] = StageInfo(
        name="synthesize",
        version=1,
        accepts={},
        produces="dataset",
        config=SynthesizeConfig,
        tools=("numpy", "Pillow", "scipy"),
    )

    def run(
        self, parents: Mapping[str, Artefact], config: SynthesizeConfig, context: Context
    ) -> StageOutput:
        with context.progress.task("rendering synthetic lesions", None) as advance:
            images = write_synthetic_dataset(
                context.directory,
                lesions=config.lesions,
                image_size=config.image_size,
                seed=config.seed,
                advance=advance,
            )
        return StageOutput({"images": images, "lesions": config.lesions})
