"""``lesiontk bundle``."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from lesiontk.cli.session import Session, command_options, print_text
from lesiontk.deploy import BUNDLE_TARGETS, find_bundle_target


@click.command()
@click.argument("reference", metavar="[ENGINE]", default="latest")
@click.option("--target", required=True, metavar="DEVICE", help=", ".join(BUNDLE_TARGETS) + ".")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="Also copy the bundle to this new folder.",
)
@click.option("--threshold", type=click.FloatRange(0, 1),
              help="Summed probability from which an image is positive on the device; default: "
              "the one that was frozen on validation.")  # fmt: skip
@click.option(
    "--research-override",
    is_flag=True,
    help="Bundle an engine that did not pass its gates, or has none, for research alone; it "
    "is shown wherever the bundle runs.",
)
@click.option(
    "--sign",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="KEY",
    help="Sign the copy at --out with this Ed25519 private key (PEM).",
)
@click.option(
    "--archive",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Also write the copy at --out as this .tar.gz, the same bytes for the same bundle.",
)
@click.option(
    "--runtime",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="DIR",
    help="Folder with the archives of the runtime, for `--target web` without npm or network.",
)
@command_options
def bundle(
    session: Session,
    reference: str,
    target: str,
    out: Path | None,
    threshold: float | None,
    research_override: bool,
    sign: Path | None,
    archive: Path | None,
    runtime: Path | None,
) -> None:
    """Write a folder that runs ENGINE on a device, with a self-test.

    An engine that did not pass its recipe's gates, or whose gates are not known, is refused.

    ENGINE is an engine (a file or an artefact), or a model whose best matching engine is used
    (default: the latest model).
    """
    from lesiontk.report.formatting import format_bytes

    made = session.open_workspace().bundle(
        reference,
        target,
        out,
        threshold=threshold,
        research_override=research_override,
        sign=sign,
        archive=archive,
        runtime=runtime,
    )
    folder, facts = made.path, made.facts
    engines = facts.engine if facts.alternative is None else f"{facts.engine}, {facts.alternative}"
    first = find_bundle_target(target).first_command.format(folder=shlex.quote(str(folder)))
    text = f"{engines} for {target}: {folder} ({format_bytes(facts.size_bytes)})\ntry it: {first}"
    session.emit({"path": str(folder), **facts.to_document()}, lambda: print_text(text))
