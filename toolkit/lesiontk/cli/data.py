"""``lesiontk data``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lesiontk.cli.session import (
    RecipeOptions,
    Session,
    command_options,
    load_recipe,
    print_text,
    recipe_options,
)
from lesiontk.errors import DataError

if TYPE_CHECKING:
    from lesiontk.data.inspection import Inspection

_SHOWN = 10


@click.group()
def data() -> None:
    """Fetch, check and split images."""


@data.command("fetch")
@click.argument("source")
@click.option("--to", "folder", type=click.Path(file_okay=False, path_type=Path), required=True,
              help="Folder to put the files in.")  # fmt: skip
@click.option("--unpack/--no-unpack", default=True, help="Unpack archives.", show_default=True)
@command_options
def fetch_command(session: Session, source: str, folder: Path, unpack: bool) -> None:
    """Download SOURCE (ham10000, isic2018-test, …) from its official source, verified."""
    from lesiontk.api.fetch import fetch_data

    result = fetch_data(source, folder, unpack=unpack)

    def show() -> None:
        print_text(result["notice"])
        print_text(f"in {folder}: {', '.join(file['name'] for file in result['files'])}")

    session.emit(result, show)


@data.command("check")
@click.argument("recipe", default="cnn_7class")
@recipe_options
@command_options
def check_command(
    session: Session,
    recipe: str,
    options: RecipeOptions,
) -> None:
    """Check every image of --data: broken, missing, duplicate; classes, lesions, age, sex, site."""
    inspection = session.open_workspace().check_data(
        load_recipe(recipe, options), accept_near_duplicates=options.accept_near_duplicates
    )
    found = inspection.record
    document = {"artefact": inspection.name, "path": str(inspection.path), **found.to_document()}
    session.emit(document, lambda: _show_inspection(found, inspection.path))
    if inspection.problem is not None:
        raise DataError(inspection.problem)


@data.command("split")
@click.argument("recipe", default="cnn_7class")
@recipe_options
@command_options
def split_command(
    session: Session,
    recipe: str,
    options: RecipeOptions,
) -> None:
    """Split the images into training, validation and test by lesion, as in RECIPE."""
    from lesiontk.cli.tables import print_table
    from lesiontk.data.dealt_split import DealtSplit
    from lesiontk.data.inspection import Inspection
    from lesiontk.report.data_wording import describe_near_duplicates
    from lesiontk.workflow.train import build_data

    chosen = load_recipe(recipe, options)
    store = session.open_store()
    split = build_data(store, chosen, "split")
    dealt = split.read_facts(DealtSplit)
    found = store.parent(split, "inspection").read_facts(Inspection)

    def show() -> None:
        rows = [
            [subset, *(f"{dealt.images[subset][n]} ({dealt.lesions[subset][n]})"
                     for n in dealt.task.labels)]
            for subset in dealt.images
        ]  # fmt: skip
        unit = "groups" if dealt.patients else "lesions"
        print_table([f"images ({unit})", *dealt.task.labels], rows)
        print_text(f"near-duplicates: {describe_near_duplicates(found, dealt)}")
        print_text(f"hash {dealt.split_hash}\n{split.file('split.csv')}")

    session.emit({"artefact": split.name, "path": str(split.path), **dealt.to_document()}, show)


def _show_inspection(found: Inspection, path: Path) -> None:
    from lesiontk.cli.tables import print_table
    from lesiontk.report.data_wording import describe_near_duplicates

    images, lesions = found.images_by_diagnosis, found.lesions_by_diagnosis
    print_table(
        ["diagnosis", "images", "lesions"],
        [[name, str(images[name]), str(lesions.get(name, 0))] for name in images],
        title=f"{found.source}: {found.images} images of {found.lesions} lesions",
    )
    if not found.lesion_ids_known:
        print_text(
            "warning: lesion ids are not known for every image; one without counts as a separate "
            "lesion unless it is a near-duplicate, and images of one lesion may be in two "
            "subsets of a split"
        )
    if found.patients:
        print_text(f"patients: {found.patients}; a split keeps the images of each together")
    broken, missing = found.broken, found.missing_files
    identical = found.identical_pixels
    _list_findings("broken", len(broken), [f"{b.image_id} ({b.reason})" for b in broken])
    _list_findings("listed without a file", len(missing), missing)
    _list_findings("files that the table does not list", found.unlisted_files, [])
    _list_findings(
        "sets of identical pixels",
        found.identical_groups,
        [" = ".join(ids) for ids in identical],
    )
    _list_findings("lesions with several diagnoses", found.lesions_with_several_diagnoses, [])
    listed, pairs = found.near_duplicates_listed, found.near_duplicates
    where = "" if not pairs else "; see near_duplicates.csv"
    if listed < pairs:
        where = f"; the nearest {listed} are in near_duplicates.csv"
    print_text(f"near-duplicates: {describe_near_duplicates(found)}{where}")
    age = found.age
    quartiles = f", quartiles {list(age.quartiles)}" if age.quartiles else ""
    print_text(f"age known: {age.known}{quartiles}")
    for name, counts in (("sex", found.sex), ("site", found.site)):
        values = ", ".join(f"{value} {number}" for value, number in counts.items())
        print_text(f"{name}: {values}")
    print_text(f"licence: {found.licence}\n{path}")


def _list_findings(title: str, number: int, examples: Sequence[str]) -> None:
    """Print their number and the first of them; `examples` may be fewer than `number`."""
    shown = list(examples[:_SHOWN])
    more = number - len(shown)
    if shown and more > 0:
        shown.append(f"and {more} more")
    lines = "".join(f"\n  {entry}" for entry in shown)
    print_text(f"{title}: {number or 'none'}{lines}")
