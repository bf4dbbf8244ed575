"""``lesiontk data``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from lesiontk.cli.session import Session, command_options, load_recipe, recipe_options


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
        click.echo(result["notice"])
        click.echo(f"in {folder}: {', '.join(file['name'] for file in result['files'])}")

    session.emit(result, show)


@data.command("check")
@click.argument("recipe", default="cnn_7class")
@recipe_options
@command_options
def check_command(
    session: Session,
    recipe: str,
    data_folder: Path | None,
    weights: str | None,
    leaky: bool,
    overrides: tuple[str, ...],
) -> None:
    """Look at every image of --data: broken, missing, doubled; classes, lesions, age, sex, site."""
    from lesiontk.workflow import build_data

    chosen = load_recipe(recipe, data_folder, weights, overrides, leaky=leaky)
    inspection = build_data(session.open_store(), chosen, "inspection")
    document = {"artefact": inspection.name, "path": str(inspection.path), **inspection.facts}
    session.emit(document, lambda: _show_inspection(document))


@data.command("split")
@click.argument("recipe", default="cnn_7class")
@recipe_options
@command_options
def split_command(
    session: Session,
    recipe: str,
    data_folder: Path | None,
    weights: str | None,
    leaky: bool,
    overrides: tuple[str, ...],
) -> None:
    """Deal the images to training, validation and test, by lesion, as RECIPE says."""
    from lesiontk.cli.tables import print_table
    from lesiontk.workflow import build_data

    chosen = load_recipe(recipe, data_folder, weights, overrides, leaky=leaky)
    split = build_data(session.open_store(), chosen, "split")
    facts = split.facts

    def show() -> None:
        rows = [
            [side, *(f"{facts['images'][side][n]} ({facts['lesions'][side][n]})"
                     for n in facts["labels"])]
            for side in facts["images"]
        ]  # fmt: skip
        print_table(["images (lesions)", *facts["labels"]], rows)
        click.echo(f"hash {facts['split_hash']}\n{split.file('split.csv')}")

    session.emit({"artefact": split.name, "path": str(split.path), **facts}, show)


def _show_inspection(document: Mapping[str, Any]) -> None:
    from lesiontk.cli.tables import print_table

    images, lesions = document["images_by_diagnosis"], document["lesions_by_diagnosis"]
    print_table(
        ["diagnosis", "images", "lesions"],
        [[name, str(images[name]), str(lesions.get(name, 0))] for name in images],
        title=f"{document['source']}: {document['images']} images of {document['lesions']} lesions",
    )
    if not document["lesion_ids_known"]:
        click.echo("warning: lesion ids are not known; every image counts as a lesion of its own, "
                   "and pictures of one lesion may stand on two sides of a split")  # fmt: skip
    for title, entries in (
        ("broken", [f"{b['image_id']} ({b['reason']})" for b in document["broken"]]),
        ("listed without a file", document["missing_files"]),
        ("identical pixels", [" = ".join(ids) for ids in document["identical_pixels"]]),
    ):
        click.echo(f"{title}: {len(entries)}" + "".join(f"\n  {entry}" for entry in entries[:10]))
    click.echo(f"files that the table does not list: {document['unlisted_files']}")
    click.echo(f"near-duplicates across lesions: {document['near_duplicates_across_lesions']} "
               f"(of {document['near_duplicates']}; near_duplicates.csv)")  # fmt: skip
    age = document["age"]
    click.echo(f"age known {age['known']}, quartiles {age['quartiles']}; sex {document['sex']}")
    click.echo(f"site {document['site']}\nlicence: {document['licence']}\n{document['path']}")
