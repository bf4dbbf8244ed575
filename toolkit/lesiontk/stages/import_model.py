"""Stage: import of a model trained elsewhere, which replaces training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from lesiontk.backends.keras.backend import find_spec
from lesiontk.compress.model_history import ModelOrigin
from lesiontk.data.images import ImageSet, open_images
from lesiontk.document import Record
from lesiontk.errors import DataError
from lesiontk.evaluate.golden_images import golden_images
from lesiontk.files.hashing import hash_document, hash_file
from lesiontk.models.imported_model import import_model, match_labels
from lesiontk.recipe import ImportedSection
from lesiontk.records import Artefact, ModelFacts
from lesiontk.stage import READING, Context, Stage, StageInfo, StageOutput
from lesiontk.stages.known_splits import check_own_split
from lesiontk.stages.model_artefact import write_untrained


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelImport(Record):
    """A model rebuilt from `file`: its `layers`, those left out, those copied from its config.

    `labels` are in the order of the file's outputs, the task's if `labels_assumed`.
    `greatest_difference` is that of its probabilities from the file's.
    """

    file: str
    labels: tuple[str, ...]
    labels_assumed: bool
    layers: int
    left_out: tuple[str, ...]
    copied: tuple[str, ...]
    greatest_difference: float


class ImportStage(Stage):
    """Produces ``model.keras`` as training does, without curves.

    Its facts record the order of the outputs, and whether the task's order was assumed. A model of
    lesiontk must have the split of the images; other models are marked as possibly trained on the
    test images.
    """

    info: ClassVar[StageInfo] = StageInfo(
        name="import",
        version=7,
        accepts={"images": "images"},
        produces="model",
        config=ImportedSection,
        schema_version=ModelFacts.SCHEMA,
        tools=("tensorflow", "tf_keras", "keras", "numpy"),
        needs=READING,
    )

    def check(self, config: ImportedSection) -> None:
        """Raise `DataError` if the file does not exist."""
        if not Path(config.file).exists():
            raise DataError(f"imported.file {config.file} does not exist.")

    def external_inputs(self, config: ImportedSection) -> dict[str, str]:
        """The hash of the file, or of all files of a SavedModel."""
        path = Path(config.file)
        if path.is_dir():
            files = sorted(entry for entry in path.rglob("*") if entry.is_file())
            return {"model": hash_document({str(f.relative_to(path)): hash_file(f) for f in files})}
        return {"model": hash_file(path)} if path.is_file() else {}

    def run(
        self, parents: Mapping[str, Artefact], config: ImportedSection, context: Context
    ) -> StageOutput:
        images = open_images(parents["images"])
        unknown = check_split(Path(config.file), images)
        labels = match_labels(config.labels or images.labels, images.labels)
        imported = import_model(
            Path(config.file),
            config.pixels,
            labels,
            images.labels,
            golden_images(images.preprocessing.image_size),
        )
        return write_untrained(
            imported.model,
            images,
            parents["images"],
            context,
            ModelOrigin(
                stage=self.info.name,
                architecture="imported",
                may_have_seen_test=unknown,
                change=ModelImport(
                    file=Path(config.file).name,
                    labels=labels,
                    labels_assumed=not config.labels,
                    layers=imported.layers,
                    left_out=imported.left_out,
                    copied=imported.copied,
                    greatest_difference=imported.greatest_difference,
                ),
            ),
        )


def check_split(file: Path, images: ImageSet) -> bool:
    """Return whether the model of a file may have been trained on the test images.

    Raises `DataError` for a model of another split, which was.
    """
    spec = find_spec(file)
    if spec is None:
        return True
    check_own_split(file.name, spec.split_hash, images.split_hash)
    return spec.may_have_seen_test
