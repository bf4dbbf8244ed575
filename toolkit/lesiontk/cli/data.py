"""``lesiontk data``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from lesiontk.cli.session import (
    RecipeOptions,
    Session,
    command_options,
    load_recipe,
    recipe_options,
    say,
)
from lesiontk.errors import DataError

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
    """Download SOURCE (ham10000, isic2018-test, …) from its official place; resumable, verified."""
    from lesiontk.cli.transfer import fetch_with_progress

    result = fetch_with_progress(source, folder, unpack)

    def show() -> None:
        say(result["notice"])
        say(f"in {folder}: {', '.join(file['name'] for file in result['files'])}")

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
    """Look at every image of --data: broken, missing, doubled; classes, lesions, age, sex, site."""
    from lesiontk.workflow.train import build_data

    chosen = load_recipe(recipe, options)
    inspection = build_data(session.open_store(), chosen, "inspection")
    document = {"artefact": inspection.name, "path": str(inspection.path), **inspection.facts}
    session.emit(document, lambda: _show_inspection(document))
    kind = "contradictions" if options.accept_near_duplicates else "contradictions_of_copies"
    if document[kind]["pictures"]:
        raise DataError(_describe_contradictions(document[kind]))


@data.command("split")
@click.argument("recipe", default="cnn_7class")
@recipe_options
@command_options
def split_command(
    session: Session,
    recipe: str,
    options: RecipeOptions,
) -> None:
    """Deal the images to training, validation and test, by lesion, as RECIPE says."""
    from lesiontk.cli.tables import print_table
    from lesiontk.report.data_wording import describe_near_duplicates
    from lesiontk.workflow.train import build_data

    chosen = load_recipe(recipe, options)
    store = session.open_store()
    split = build_data(store, chosen, "split")
    facts, found = split.facts, store.resolve(split.manifest["parents"]["inspection"]["name"])

    def show() -> None:
        rows = [
            [subset, *(f"{facts['images'][subset][n]} ({facts['lesions'][subset][n]})"
                     for n in facts["labels"])]
            for subset in facts["images"]
        ]  # fmt: skip
        unit = "groups" if facts["patients"] else "lesions"
        print_table([f"images ({unit})", *facts["labels"]], rows)
        say(f"near-duplicates: {describe_near_duplicates(found.facts, facts)}")
        say(f"hash {facts['split_hash']}\n{split.file('split.csv')}")

    session.emit({"artefact": split.name, "path": str(split.path), **facts}, show)


def _show_inspection(document: Mapping[str, Any]) -> None:
    from lesiontk.cli.tables import print_table
    from lesiontk.report.data_wording import describe_near_duplicates

    images, lesions = document["images_by_diagnosis"], document["lesions_by_diagnosis"]
    print_table(
        ["diagnosis", "images", "lesions"],
        [[name, str(images[name]), str(lesions.get(name, 0))] for name in images],
        title=f"{document['source']}: {document['images']} images of {document['lesions']} lesions",
    )
    if not document["lesion_ids_known"]:
        say(
            "warning: lesion ids are not known for every image; one without counts as a lesion of "
            "its own unless it looks like another one, and pictures of one lesion may stand on two "
            "subsets of a split"
        )
    if document["patients"]:
        say(f"patients: {document['patients']}; a split keeps the images of each together")
    broken, missing = document["broken"], document["missing_files"]
    identical = document["identical_pixels"]
    _list_findings("broken", len(broken), [f"{b['image_id']} ({b['reason']})" for b in broken])
    _list_findings("listed without a file", len(missing), missing)
    _list_findings("files that the table does not list", document["unlisted_files"], [])
    _list_findings(
        "sets of identical pixels",
        document["identical_groups"],
        [" = ".join(ids) for ids in identical],
    )
    _list_findings("lesions with several diagnoses", document["lesions_with_several_diagnoses"], [])
    listed, pairs = document["near_duplicates_listed"], document["near_duplicates"]
    where = "" if not pairs else "; see near_duplicates.csv"
    if listed < pairs:
        where = f"; the nearest {listed} are in near_duplicates.csv"
    say(f"near-duplicates: {describe_near_duplicates(document)}{where}")
    age = document["age"]
    quartiles = f", quartiles {age['quartiles']}" if age["known"] else ""
    say(f"age known: {age['known']}{quartiles}")
    for name in ("sex", "site"):
        values = ", ".join(f"{value} {number}" for value, number in document[name].items())
        say(f"{name}: {values}")
    say(f"licence: {document['licence']}\n{document['path']}")


def _list_findings(title: str, number: int, examples: Sequence[str]) -> None:
    """Print how many there are and the first of them; `examples` may be fewer than `number`."""
    shown = list(examples[:_SHOWN])
    more = number - len(shown)
    if shown and more > 0:
        shown.append(f"and {more} more")
    lines = "".join(f"\n  {entry}" for entry in shown)
    say(f"{title}: {number or 'none'}{lines}")


def _describe_contradictions(found: Mapping[str, Any]) -> str:
    number = found["pictures"]
    shown = [
        " and ".join(f"{image} ({diagnosis})" for diagnosis, image in images.items())
        for images in found["examples"][:_SHOWN]
    ]
    more = f" and {number - len(shown)} more" if number > len(shown) else ""
    return (
        f"{number} {'picture has' if number == 1 else 'pictures have'} several "
        f"diagnoses: {'; '.join(shown)}{more}; expected one diagnosis for each picture. Correct "
        "it, or take these images out."
    )
