"""The images of a workspace: inspection, split, calibration lists, and files made from them."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lesiontk.api.data import CalibrationList, Inspection, Split
from lesiontk.api.findings import table_of
from lesiontk.api.progress import make_progress
from lesiontk.api.results import GatePower
from lesiontk.api.stored import Stored, refer_to
from lesiontk.progress import NoProgress
from lesiontk.recipe import Recipe
from lesiontk.store import SharedStore, Store
from lesiontk.workflow.choose_recipe import Settings, choose_recipe, list_overrides, with_gates

if TYPE_CHECKING:
    import pandas as pd

    from lesiontk.stage import BuildObserver
    from lesiontk.workflow.calibration_lists import ListCheck, ListDescription

DEFAULT = "lesiontk-workspace"
"""The default folder, also on the command line."""

RecipeLike = str | Path | Recipe
"""A packaged recipe's name, a YAML file, or a recipe object."""


class DataWorkspace:
    """The operations of a workspace on images; `Workspace` has all operations."""

    def __init__(
        self,
        path: str | Path | None = None,
        *,
        shared: str | None = None,
        track: str | None = None,
        progress: bool = True,
    ) -> None:
        from lesiontk.errors import UsageError

        folder = Path(path or os.environ.get("LESIONTK_WORKSPACE") or DEFAULT)
        if os.path.lexists(folder) and not folder.is_dir():
            raise UsageError(
                f"the workspace {folder} is not a folder; specify another with --workspace."
            )
        url = shared or os.environ.get("LESIONTK_SHARED")
        tracker = os.environ.get("LESIONTK_TRACK") if track is None else track
        self.store = Store(
            folder,
            make_progress() if progress else NoProgress(),
            shared=SharedStore(url) if url else None,
            observer=_track(tracker, folder) if tracker else None,
        )

    @property
    def path(self) -> Path:
        """The workspace's folder."""
        return self.store.workspace

    def check_data(
        self,
        recipe: RecipeLike = "cnn_7class",
        *,
        data: str | Path | None = None,
        accept_near_duplicates: bool = False,
        set: Settings = None,
    ) -> Inspection:
        """Check every image of a folder: broken, missing, duplicate; classes, lesions, patients.

        `Inspection.problem` is the reason why the images cannot be split; with
        `accept_near_duplicates` near-duplicates count as different images there.
        """
        return Inspection(
            self,
            self._build_data("inspection", recipe, data=data, set=set),
            accept_near_duplicates=accept_near_duplicates,
        )

    def split(
        self,
        recipe: RecipeLike = "cnn_7class",
        *,
        data: str | Path | None = None,
        accept_near_duplicates: bool = False,
        allow_leaky_split: bool = False,
        set: Settings = None,
    ) -> Split:
        """Split the images into training, validation and test by lesion, for the recipe's task.

        Raises `DataError` for images that cannot be split, such as one image with two classes.
        """
        artefact = self._build_data(
            "split",
            recipe,
            data=data,
            accept_near_duplicates=accept_near_duplicates,
            allow_leaky_split=allow_leaky_split,
            set=set,
        )
        return Split(self, artefact)

    def draw_calibration(
        self,
        recipe: RecipeLike | None = None,
        *,
        data: str | Path | None = None,
        images: int | None = None,
        draw: str | None = None,
        cover: Sequence[str] | None = None,
        seed: int | None = None,
        out: str | Path | None = None,
        set: Settings = None,
    ) -> CalibrationList:
        """Draw a calibration list from training images of a recipe, or of those prepared last.

        `draw` is ``balanced`` (equal shares of the classes) or ``natural``; `cover` are the
        properties over which each class is stratified: ``site``, ``brightness``. The list is also
        written to `out` as CSV. Raises `DataError` if a class has too few images.
        """
        from lesiontk.errors import UsageError
        from lesiontk.workflow.calibration_lists import draw_list

        if recipe is None and data is not None:
            raise UsageError("data requires a recipe; specify one, such as cnn_7class.")
        given = {"images": images, "draw": draw, "cover": list(cover or ()) or None, "seed": seed}
        changes = [f"calibration.{k}={json.dumps(v)}" for k, v in given.items() if v is not None]
        changes += ["calibration.list=null", *list_overrides(set)]
        chosen = None if recipe is None else self._choose(recipe, data=data, set=set)
        drawn = CalibrationList(self, draw_list(self.store, chosen, changes))
        if out is not None:
            drawn.write(out)
        return drawn

    def describe_calibration(self, reference: str | Path | Stored = "latest") -> ListDescription:
        """Return a list's composition by class, body site and brightness, and how it was drawn.

        `reference` is a packaged list's name, a CSV file or an artefact.
        """
        from lesiontk.workflow.calibration_lists import describe_list

        return describe_list(self.store, refer_to(reference))

    def check_calibration(
        self,
        reference: str | Path | Stored = "latest",
        *,
        split: str | Path | Stored | None = None,
        data: str | Path | None = None,
    ) -> ListCheck:
        """Return the proof that a list contains only training images: by id, lesion and pixels.

        `split` is an artefact, a ``split.csv`` or the first digits of a packaged split's hash;
        default: the one that the list was drawn from. Raises `GateFailedError` with the first wrong
        image.
        """
        from lesiontk.workflow.calibration_lists import check_list

        return check_list(
            self.store,
            refer_to(reference),
            None if split is None else refer_to(split),
            None if data is None else Path(data),
        )

    def gate_power(
        self,
        recipe: RecipeLike,
        *,
        data: str | Path | None = None,
        accept_near_duplicates: bool = False,
        allow_leaky_split: bool = False,
        gates: Sequence[str] = (),
        set: Settings = None,
    ) -> GatePower:
        """Return the smallest loss that the test images of a recipe's split can resolve."""
        from lesiontk.workflow.gate_power import measure_power

        chosen = self._choose(
            recipe,
            data=data,
            accept_near_duplicates=accept_near_duplicates,
            allow_leaky_split=allow_leaky_split,
            gates=gates,
            set=set,
        )
        return GatePower(measure_power(self.store, chosen))

    def new_recipe(
        self,
        file: str | Path,
        data: str | Path,
        *,
        task: str | None = None,
        critical: str | None = None,
        like: str | None = None,
    ) -> Recipe:
        """Write a commented recipe file for a folder of images, and a task file if none matches.

        `critical` is the class that must not be missed, `like` the packaged recipe to start from.
        Raises `UsageError` if the file exists.
        """
        from lesiontk.workflow.new_recipe import write_recipe

        made, _ = write_recipe(
            self.store, Path(file), Path(data), task=task, critical=critical, like=like
        )
        return made

    def new_task(
        self,
        file: str | Path,
        data: str | Path,
        *,
        critical: str | None = None,
        title: str | None = None,
    ) -> pd.DataFrame:
        """Write a commented task file for the classes of a folder, and return the classes."""
        from dataclasses import asdict

        from lesiontk.workflow.new_recipe import write_task

        classes = write_task(self.store, Path(file), Path(data), critical=critical, title=title)
        return table_of([asdict(found) for found in classes])

    def _choose(
        self,
        recipe: RecipeLike,
        *,
        data: str | Path | None = None,
        weights: str | None = None,
        accept_near_duplicates: bool = False,
        allow_leaky_split: bool = False,
        gates: Sequence[str] = (),
        set: Settings = None,
    ) -> Recipe:
        return choose_recipe(
            recipe,
            data=None if data is None else Path(data),
            weights=weights,
            accept_near_duplicates=accept_near_duplicates,
            leaky=allow_leaky_split,
            overrides=with_gates(set, gates),
        )

    def _build_data(self, step: str, recipe: RecipeLike, **options: Any) -> Any:
        from lesiontk.workflow.train import build_data

        return build_data(self.store, self._choose(recipe, **options), step)


def _track(name: str, folder: Path) -> BuildObserver:
    from lesiontk.workflow.tracking import Tracking

    return Tracking(name, folder)
