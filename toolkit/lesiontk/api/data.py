"""Images of a workspace: inspection, split and calibration lists."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lesiontk.api.findings import show_table, table_of
from lesiontk.api.stored import Stored

if TYPE_CHECKING:
    import pandas as pd

    from lesiontk.api.data_workspace import DataWorkspace
    from lesiontk.calibration.drawn_list import DrawnList
    from lesiontk.data.dealt_split import DealtSplit
    from lesiontk.data.inspection import Inspection as InspectionRecord
    from lesiontk.records import Artefact


class Inspection(Stored):
    """The inspection of a folder's images: class, lesion, size, copies and faults."""

    def __init__(
        self, workspace: DataWorkspace, artefact: Artefact, *, accept_near_duplicates: bool = False
    ) -> None:
        super().__init__(workspace, artefact)
        self._accept_near_duplicates = accept_near_duplicates

    @property
    def record(self) -> InspectionRecord:
        """Every count by name."""
        from lesiontk.data.inspection import Inspection as InspectionRecord

        return self.artefact.read_facts(InspectionRecord)

    @property
    def problem(self) -> str | None:
        """Why the images cannot be split: copies of an image under several diagnoses; else None."""
        from lesiontk.report.data_wording import describe_contradictions

        record = self.record
        found = (
            record.contradictions
            if self._accept_near_duplicates
            else record.contradictions_of_copies
        )
        return describe_contradictions(found) if found.pictures else None

    def to_pandas(self) -> pd.DataFrame:
        """Return a row for each usable image, as in ``images.csv``."""
        from lesiontk.stages.inspect_images import read_inspection

        return table_of([row.field_values() for row in read_inspection(self.artefact)])

    def _repr_html_(self) -> str:
        record = self.record
        rows = [
            {"diagnosis": name, "images": n, "lesions": record.lesions_by_diagnosis.get(name, 0)}
            for name, n in record.images_by_diagnosis.items()
        ]
        caption = f"{record.images} images of {record.lesions} lesions; {len(record.broken)} broken"
        return show_table(table_of(rows), caption)


class Split(Stored):
    """A split of images into training, validation and test, by lesion."""

    @property
    def record(self) -> DealtSplit:
        """Every count by name."""
        from lesiontk.data.dealt_split import DealtSplit

        return self.artefact.read_facts(DealtSplit)

    @property
    def hash(self) -> str:
        """SHA-256 of the split; every engine records that of its split."""
        return self.record.split_hash

    def to_pandas(self) -> pd.DataFrame:
        """Return a row for each image, with its ``subset``, ``label`` and ``group``."""
        from lesiontk.stages.split import read_split

        return table_of([row.field_values() for row in read_split(self.artefact)])

    def _repr_html_(self) -> str:
        rows = [
            {"subset": subset, **{label: counts[label] for label in self.record.task.labels}}
            for subset, counts in self.record.images.items()
        ]
        return show_table(table_of(rows), f"images; split {self.hash[:12]}")


class CalibrationList(Stored):
    """The training images on which int8 ranges are measured."""

    @property
    def record(self) -> DrawnList:
        """How the list was drawn, and its counts."""
        from lesiontk.calibration.drawn_list import DrawnList

        return self.artefact.read_facts(DrawnList)

    def to_pandas(self) -> pd.DataFrame:
        """Return a row for each image."""
        from lesiontk.stages.calibrate import read_calibration

        return table_of(read_calibration(self.artefact))

    def write(self, file: str | Path) -> Path:
        """Write the list as CSV and the record of its draw as YAML, and return the YAML's path."""
        from lesiontk.workflow.calibration_lists import write_list

        return write_list(self.artefact, Path(file))

    def _repr_html_(self) -> str:
        record = self.record
        rows = [{"class": name, "images": n} for name, n in record.images_by_label.items()]
        return show_table(table_of(rows), f"{record.images} calibration images")
