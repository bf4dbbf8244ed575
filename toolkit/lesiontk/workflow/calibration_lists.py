"""Drawing, showing and checking of calibration lists."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path

import yaml

from lesiontk.calibration.check import ListProof, SplitTable, check_rows, table_from_rows
from lesiontk.calibration.composition import count_composition
from lesiontk.calibration.draw import list_names, read_list_rows
from lesiontk.calibration.drawn_list import DrawnList
from lesiontk.data.sources.table import read_table
from lesiontk.document import Record
from lesiontk.errors import DataError, GateFailedError, UsageError
from lesiontk.files.strict_yaml import load_yaml, read_yaml
from lesiontk.files.whole_files import write_whole
from lesiontk.recipe import DataSection, Recipe, override_recipe
from lesiontk.records import Artefact
from lesiontk.stages.calibrate import COLUMNS, CalibrateStage, read_calibration
from lesiontk.stages.inspect_images import read_inspection
from lesiontk.stages.known_splits import locate_packaged
from lesiontk.stages.split import read_split
from lesiontk.store import Store
from lesiontk.workflow.lineage import recipe_of
from lesiontk.workflow.runner import known_ancestors
from lesiontk.workflow.train import build_data

HASH = "pixel_sha256"


def draw_list(store: Store, recipe: Recipe | None, overrides: Iterable[str] = ()) -> Artefact:
    """Draw a list from the training subset of a recipe's images, or of those prepared last.

    A run of the same recipe uses the same artefact. Raises `DataError` if a class has too few
    images.
    """
    if recipe is None:
        images = store.resolve("latest", "images")
        recipe = recipe_of(images)
    else:
        images = build_data(store, recipe, "images")
    recipe = override_recipe(recipe, overrides)
    parents = {"images": images}
    if "inspection" in (known := known_ancestors(images, store)):
        parents["inspection"] = known["inspection"]
    document = recipe.model_dump(mode="json")
    return store.build(CalibrateStage(), recipe.calibration, parents, recipe=document)


def write_list(artefact: Artefact, path: Path) -> Path:
    """Write a list with pixel hashes as CSV, and how it was drawn as YAML beside it.

    Returns the path of the YAML. Raises `UsageError` if another list would be overwritten.
    """
    if path.suffix != ".csv":
        raise UsageError(f"the list would be {path.name}; expected a name that ends in .csv.")
    facts = dict(artefact.facts)
    hashes = facts.pop(HASH)
    stream = io.StringIO()
    writer = csv.DictWriter(stream, (*COLUMNS, HASH), lineterminator="\n")
    writer.writeheader()
    for row in read_calibration(artefact):
        writer.writerow({**row, HASH: hashes[row["image_id"]]})
    text = stream.getvalue()
    if path.exists() and path.read_text() != text:
        raise UsageError(
            f"{path} contains another list; expected a new file: specify one with --out."
        )
    sidecar = path.with_suffix(".yaml")
    drawn = yaml.safe_dump(facts, sort_keys=False, allow_unicode=True)
    write_whole({path: text.encode(), sidecar: drawn.encode()})
    return sidecar


@dataclass(frozen=True, slots=True, kw_only=True)
class ListDescription(Record):
    """A list's images and lesions, its composition as in `count_composition`, how it was drawn.

    `drawn` is None for a file without a YAML of its name beside it.
    """

    list: str
    images: int
    lesions: int
    composition: Mapping[str, Mapping[str, Mapping[str, int]]]
    drawn: DrawnList | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ListCheck(ListProof):
    """The proof for a list of a split, both by name."""

    list: str
    split: str


def describe_list(store: Store, reference: str) -> ListDescription:
    """Return a list's composition by class, body site and brightness, and how it was drawn."""
    rows, drawn = _open_list(store, reference)
    return ListDescription(
        list=reference,
        images=len(rows),
        lesions=len({row.get("lesion_id") or row["image_id"] for row in rows}),
        composition=count_composition(rows),
        drawn=drawn,
    )


def check_list(
    store: Store, reference: str, split: str | None = None, data: Path | None = None
) -> ListCheck:
    """Return the proof that a list contains only training images of the split.

    `split` is an artefact, a ``split.csv``, or the first digits of a packaged split's hash; without
    one, the split that a list was drawn from, of the workspace or packaged, and the latest for a
    file. Pixels are those of the images in `data`, else the hashes in the split are compared.
    Raises `GateFailedError` with the first wrong image.
    """
    rows, drawn = _open_list(store, reference)
    name, split_rows = _open_split(store, split or _name_split(store, drawn))
    table = table_from_rows(split_rows)
    if data is not None:
        table = replace(table, hashes=_hash_images(store, data, table))
    try:
        proof = check_rows(rows, table)
    except DataError as error:
        raise GateFailedError(f"{reference} does not match {name}: {error}") from error
    return ListCheck(list=reference, split=name, **proof.field_values())


def _open_list(
    store: Store, reference: str
) -> tuple[Sequence[Mapping[str, str]], DrawnList | None]:
    if reference in list_names():
        folder = resources.files("lesiontk.calibration_lists")
        document = folder.joinpath(f"{reference}.yaml").read_text()
        return read_list_rows(reference), DrawnList.from_document(load_yaml(document))
    path = Path(reference)
    if path.is_file() or path.suffix == ".csv":
        return read_list_rows(reference), _read_drawn(path.with_suffix(".yaml"))
    artefact = store.resolve(reference, "calibration")
    drawn = artefact.read_facts(DrawnList)
    hashes = drawn.pixel_sha256
    rows = [{**row, HASH: hashes[row["image_id"]]} for row in read_calibration(artefact)]
    return rows, replace(drawn, pixel_sha256={})


def _read_drawn(sidecar: Path) -> DrawnList | None:
    """Return the record of a list's draw from the YAML beside it; None without one."""
    if not os.path.lexists(sidecar):
        return None
    try:
        drawn = read_yaml(sidecar, "the YAML beside the list,")
    except yaml.YAMLError as error:
        raise DataError(f"{sidecar} is not valid YAML: {error}. Correct or remove it.") from error
    try:
        return DrawnList.from_document(drawn)
    except DataError as error:
        raise DataError(
            f"{sidecar} is not the record of a list's draw: {error} Correct or remove it."
        ) from error


def _name_split(store: Store, drawn: DrawnList | None) -> str:
    """Return the split that a list was drawn from, of the workspace or packaged, else the
    latest."""
    if drawn is None:
        return "latest"
    split_hash = drawn.split_hash
    for artefact in store.list_artefacts("split"):
        if artefact.facts["split_hash"] == split_hash:
            return artefact.name
    return split_hash if locate_packaged(split_hash).is_file() else "latest"


def _hash_images(store: Store, data: Path, table: SplitTable) -> tuple[str, ...]:
    """Return the pixel hashes of a split's images in a folder, as `lesiontk data check` has them.

    Raises `DataError` if one is missing.
    """
    recipe = Recipe(name="calibration", data=DataSection(path=str(data.resolve())))
    images = read_inspection(build_data(store, recipe, "inspection"))
    found = {row.image_id: row.pixel_sha256 for row in images}
    missing = [image_id for image_id in table.image_ids if image_id not in found]
    if missing:
        raise DataError(
            f"{len(missing)} of the split's {len(table.image_ids)} images are not in {data} "
            f"({missing[0]}); expected the images of the split."
        )
    return tuple(found[image_id] for image_id in table.image_ids)


def _open_split(store: Store, reference: str) -> tuple[str, list[dict[str, str]]]:
    path, shipped = Path(reference), locate_packaged(reference)
    if path.is_file():
        table = read_table(path)
        if missing_columns := {"image_id", "subset"} - set(table.columns):
            raise DataError(
                f"{path} has no column {' and '.join(sorted(missing_columns))}; expected a "
                "split.csv, as `lesiontk data split` writes it."
            )
        return path.name, [dict(row.cells) for row in table.rows]
    if shipped.is_file():
        return reference[:12], list(csv.DictReader(shipped.read_text().splitlines()))
    artefact = store.resolve(reference, "split")
    return artefact.name, [row.to_document() for row in read_split(artefact)]
