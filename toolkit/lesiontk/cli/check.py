"""``lesiontk check``."""

from __future__ import annotations

from pathlib import Path

import click

from lesiontk.cli.session import Session, command_options


@click.command()
@click.argument("model", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--tensorrt",
    "versions",
    multiple=True,
    metavar="VERSION",
    help="As 8.5.2; repeatable. Default: those of JetPack 5, 6 and now.",
)
@click.option("--target", metavar="JETSON", help="The versions of jetson-orin-jetpack6 or another.")
@command_options
def check(session: Session, model: Path, versions: tuple[str, ...], target: str | None) -> None:
    """Would TensorRT take the ONNX file MODEL? Names each node that it would refuse, and why.

    Checked by rules (explicit symmetric Q/DQ), by the operators of each version, and by the parser
    of TensorRT where one is installed and runs. Exit code 1 if something was found.
    """
    from lesiontk.backends.tensorrt.check import VERSIONS, check_model
    from lesiontk.backends.tensorrt.targets import find_target

    named = (*versions, *(find_target(target).tensorrt if target else ()))
    report = check_model(model, tuple(dict.fromkeys(named)) or VERSIONS)

    def show() -> None:
        for finding in report.findings:
            click.echo(str(finding))
        how = f"rules, the operators of TensorRT {', '.join(report.versions)}"
        how += (
            f" and the parser of {report.parser}"
            if report.parser
            else f"; no parser of TensorRT read it: {report.no_parser}"
        )
        count = f"{len(report.findings)} finding(s)" if report.findings else "nothing"
        click.echo(f"{model.name}: {count} found by {how}")

    session.emit(report.to_json(), show)
    if not report.passed:
        raise click.exceptions.Exit(1)
