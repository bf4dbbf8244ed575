"""``lesiontk calibration``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lesiontk.cli.session import (
    Session,
    command_options,
    print_text,
    set_option,
)

if TYPE_CHECKING:
    from lesiontk.calibration.drawn_list import DrawnList
    from lesiontk.workflow.calibration_lists import ListCheck, ListDescription


@click.group()
def calibration() -> None:
    """Draw, show and check the list of training images on which int8 ranges are measured."""


@calibration.command("draw")
@click.argument("recipe", required=False)
@click.option("--data", "data_folder",
              type=click.Path(exists=True, file_okay=False, path_type=Path),
              help="Folder of images and their table, for RECIPE.")  # fmt: skip
@click.option("--images", type=int, help="Number of images; at most one per lesion.")
@click.option("--draw", type=click.Choice(["balanced", "natural"]),
              help="Equal shares of the classes, or those that they have.")  # fmt: skip
@click.option("--cover", type=click.Choice(["site", "brightness"]), multiple=True,
              help="What the images of a class are spread over; default: both.")  # fmt: skip
@click.option("--seed", type=int, help="Seed of the sample.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), show_default=True,
              default=Path("calibration.csv"), help="The list; a YAML beside it records how it was "
              "drawn.")  # fmt: skip
@set_option
@command_options
def draw_command(
    session: Session,
    recipe: str | None,
    data_folder: Path | None,
    out: Path,
    overrides: tuple[str, ...],
    **draw_options: Any,
) -> None:
    """Draw a list from the training split of RECIPE, or of the images prepared last."""
    from lesiontk.calibration.drawn_list import DrawnList

    made = session.open_workspace().draw_calibration(
        recipe, data=data_folder, out=out, set=overrides, **draw_options
    )
    drawn, sidecar = made.artefact.read_facts(DrawnList), out.with_suffix(".yaml")
    files = {"file": str(out), "description": str(sidecar)}
    document = {"artefact": made.name, **files, **drawn.to_document()}
    session.emit(document, lambda: _show_drawn(drawn, out, sidecar))


@calibration.command("show")
@click.argument("list_", metavar="[LIST]", default="latest")
@command_options
def show_command(session: Session, list_: str) -> None:
    """Show the images of LIST by class, body site and brightness.

    LIST is a packaged list's name, a CSV file or an artefact; default: the latest drawn.
    """
    from lesiontk.workflow.calibration_lists import describe_list

    found = describe_list(session.open_store(), list_)
    session.emit(found.to_document(), lambda: _show_list(found))


@calibration.command("check")
@click.argument("list_", metavar="[LIST]", default="latest")
@click.option("--split", help="An artefact, a split.csv, or a packaged split's first digits; "
              "default: the split that LIST was drawn from, else the latest.")  # fmt: skip
@click.option("--data", type=click.Path(exists=True, file_okay=False, path_type=Path),
              help="Folder of the split's images, whose pixels are compared; needed for a packaged "
              "split, which has no hashes.")  # fmt: skip
@command_options
def check_command(session: Session, list_: str, split: str | None, data: Path | None) -> None:
    """Check that LIST contains only training images: by id, by lesion and by pixels.

    Exit code 1 with the first image that is unknown, is in another subset or shared with one, or
    whose pixels have changed since LIST was drawn.
    """
    from lesiontk.workflow.calibration_lists import check_list

    found = check_list(session.open_store(), list_, split, data)
    session.emit(found.to_document(), lambda: _show_proof(found))


@calibration.command("stability")
@click.argument("model", default="latest")
@click.option("--on", "target", default="tflite:int8", show_default=True,
              help="The engine that is made from each draw.")  # fmt: skip
@click.option("--draws", type=click.IntRange(min=1), default=3, show_default=True)
@set_option
@command_options
def stability_command(
    session: Session, model: str, target: str, draws: int, overrides: tuple[str, ...]
) -> None:
    """Measure how MODEL's int8 engine depends on the calibration sample.

    Engines from further samples are compared with the recipe's engine on validation.
    """
    from lesiontk.cli.tables import print_table

    found = session.open_workspace().model(model).stability(target, draws=draws, set=overrides)
    made, rows, facts = found.artefact, found.rows, found.record

    def show() -> None:
        own = facts.own
        name = "list" if own.seed is None else own.seed
        scores = [f"{own.balanced_accuracy:.3f}", f"{own.critical_recall:.3f}"]
        table = [[f"{name} (the recipe's)", "", "", "", *scores]]
        for row in rows:
            table.append(
                [f"{row.seed}", f"{row.shared}", f"{row.top1_agreement:.3f}",
                 f"{row.mean_drift:.5f}", f"{row.balanced_accuracy:.3f}",
                 f"{row.critical_recall:.3f}"]
            )  # fmt: skip
        print_table(
            ["seed", "images shared", "top-1 as the recipe's", "mean drift", "balanced accuracy",
             "critical recall"],
            table,
            title=f"{made.name}: {target} from {draws} further draws of {facts.images} images "
            f"(n = {facts.validation} validation images)",
        )  # fmt: skip

    session.emit(found.document, show)


def _show_proof(proof: ListCheck) -> None:
    others = " and ".join(f"{n} {subset}" for subset, n in proof.disjoint_from.items())
    by = "id, lesion and pixels" if proof.pixels_compared else "id and lesion"
    print_text(f"{proof.images} training images of {proof.split}; none is shared "
               f"with {others} images, by {by}")  # fmt: skip
    if confirmed := proof.pixels_confirmed:
        print_text(f"{confirmed} have the pixels that the list was drawn with")
    if not proof.pixels_compared:
        print_text("note: pixels were not compared, because the split has no hashes; specify its "
                   "images with --data DIR")  # fmt: skip


def _show_drawn(drawn: DrawnList, out: Path, sidecar: Path) -> None:
    others = " and ".join(f"{n} {subset}" for subset, n in drawn.disjoint_from.items())
    labels, sites, bands = (
        ", ".join(f"{level} {n}" for level, n in counts.items())
        for counts in (drawn.images_by_label, drawn.images_by_site, drawn.images_by_brightness)
    )
    from lesiontk.report.data_wording import describe_sites

    print_text(f"{drawn.images} training images, {drawn.draw} by class: {labels}")
    print_text(f"body sites: {describe_sites(drawn)}: {sites}\nbrightness: {bands}")
    print_text(f"shared with {others} images, by id, lesion and pixels: none")
    print_text(f"{out}\n{sidecar}")


def _show_list(found: ListDescription) -> None:
    from lesiontk.cli.tables import print_table

    print_text(f"{found.list}: {found.images} images of {found.lesions} lesions")
    composition = found.composition
    labels = list(composition.get("label", {}))
    for axis, levels in composition.items():
        columns = ["all"] if axis == "label" else ["all", *labels]
        rows = [
            [level, str(sum(counts.values())), *(str(counts.get(n, 0)) for n in columns[1:])]
            for level, counts in levels.items()
        ]
        print_table([{"label": "class"}.get(axis, axis), *columns], rows)
    absent = [axis for axis in ("site", "brightness") if axis not in composition]
    if absent:
        print_text(f"note: the list does not contain {' nor '.join(absent)}")
    if drawn := found.drawn:
        print_text(f"drawn: {drawn.draw}, seed {drawn.seed}, from the split "
                   f"{drawn.split_hash[:12]}")  # fmt: skip
