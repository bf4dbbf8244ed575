"""``lesiontk check``."""

from __future__ import annotations

import click

from lesiontk.cli.session import Session, command_options, print_text


@click.command()
@click.argument("model", default="latest")
@click.option(
    "--tensorrt",
    "versions",
    multiple=True,
    metavar="VERSION",
    help="Such as 8.5.2; repeatable. Default: JetPack 5, 6 and the latest.",
)
@click.option(
    "--target", metavar="JETSON", help="The versions of a device, such as jetson-orin-jetpack6."
)
@click.option("--verbose", is_flag=True, help="List every node instead of one per reason.")
@command_options
def check(
    session: Session, model: str, versions: tuple[str, ...], target: str | None, verbose: bool
) -> None:
    """Check whether TensorRT accepts MODEL; list unsupported nodes by operator and reason.

    MODEL is an ONNX file or an engine of the workspace (default: its latest ONNX engine). It is
    checked by rules (explicit symmetric Q/DQ), by the operators of each version, and by TensorRT's
    parser if installed. Exit code 1 if the check fails.
    """
    from lesiontk.backends.tensorrt.check import check_model, choose_versions
    from lesiontk.backends.tensorrt.findings import group_findings
    from lesiontk.workflow.lineage import locate_onnx

    chosen = choose_versions(versions, target)
    path = locate_onnx(session.open_store(), model)
    report = check_model(path, chosen)

    def show() -> None:
        for line in report.findings if verbose else group_findings(report.findings):
            print_text(str(line))
        how = f"rules, the operators of TensorRT {', '.join(report.versions)}"
        how += (
            f" and the parser of {report.parser}"
            if report.parser
            else f"; no parser of TensorRT read it: {report.no_parser}"
        )
        count = f"{len(report.findings)} finding(s)" if report.findings else "nothing"
        print_text(f"{path.name}: {count} found by {how}")

    session.emit(report.to_document(), show)
    if not report.passed:
        raise click.exceptions.Exit(1)
