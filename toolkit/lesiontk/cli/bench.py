"""``lesiontk bench``."""

from __future__ import annotations

from pathlib import Path

import click

from lesiontk.cli.session import Session, command_options, gate_option, set_option


@click.command()
@click.argument("engines", nargs=-1)
@click.option(
    "--model", default="latest", help="The model whose engines are compared.", show_default=True
)
@click.option("--fresh", is_flag=True, help="Measure again although an equal benchmark exists.")
@click.option("--labels", metavar="NAMES",
              help="Names of the outputs, comma-separated, of engine files that lesiontk did not "
              "write.")  # fmt: skip
@click.option("--pixels", default="0..255", show_default=True, metavar="RANGE",
              help="What a float input of such a file takes: 0..255, 0..1 or -1..1.")  # fmt: skip
@click.option("--images", type=click.Path(exists=True, file_okay=False, path_type=Path),
              help="Labelled images to judge engine files on.")  # fmt: skip
@click.option("--import", "devices", multiple=True, metavar="FILE",
              type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="Measurements on a device (`run.py bench --json` of a bundle), which decide "
              "gates on latency and memory.")  # fmt: skip
@click.option(
    "--target",
    metavar="URL",
    help="Measure on another machine: ssh://USER@HOST[:PORT] or adb://SERIAL.",
)
@click.option(
    "--device",
    metavar="DEVICE",
    help="The bundle target of that machine; default: that of its processor.",
)
@click.option("--install", is_flag=True,
              help="Install what bundles need there, for the measurement alone.")  # fmt: skip
@gate_option
@set_option
@command_options
def bench(
    session: Session,
    engines: tuple[str, ...],
    model: str,
    fresh: bool,
    labels: str | None,
    pixels: str,
    images: Path | None,
    devices: tuple[Path, ...],
    target: str | None,
    device: str | None,
    install: bool,
    overrides: tuple[str, ...],
    gates: tuple[str, ...],
) -> None:
    """Measure latency, one image at a time, and accuracy against the parent.

    Without ENGINE: all engines of the model. ENGINE may be an artefact (`lesiontk ls`) or an
    engine file, also one of other tools; for files, latency, size and memory are measured, and with
    --images their outputs.

    With --target the bundles of the engines are also measured there, by the user's own ssh or adb,
    in a temporary folder. Gates on latency and memory are decided by that machine.
    """
    from lesiontk.cli.tables import print_benchmark

    found = session.open_workspace().bench(
        *engines,
        model=model,
        fresh=fresh,
        gates=gates,
        images=images,
        labels=[name.strip() for name in labels.split(",")] if labels else (),
        pixels=pixels,
        devices=devices,
        target=target,
        device=device,
        install=install,
        set=overrides,
    )
    session.emit(found.document, lambda: print_benchmark(found.record))
    found.check_gates()
