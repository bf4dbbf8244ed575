"""``lesiontk build``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from lesiontk.cli.session import Session, command_options, print_text
from lesiontk.errors import UsageError

if TYPE_CHECKING:
    from lesiontk.backends.tensorrt.build import BuiltFile


@click.command()
@click.argument("engine")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE.plan",
    help="Default: the engine's name with .plan, in this folder.",
)
@click.option(
    "--batches",
    default="1,1,1",
    show_default=True,
    metavar="MIN,OPT,MAX",
    help="Minimum, optimum and maximum batch size of the optimization profile.",
)
@click.option(
    "--workspace-limit",
    type=click.IntRange(min=1),
    default=1024,
    show_default=True,
    metavar="MB",
    help="Scratch memory on the GPU, in MiB.",
)
@click.option(
    "--timing-cache",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Timing cache of earlier builds, which this build uses and extends.",
)
@click.option(
    "--capability",
    "capabilities",
    multiple=True,
    metavar="SM",
    help="Build for GPUs of another compute capability, such as sm_86; repeatable.",
)
@command_options
def build(
    session: Session,
    engine: str,
    out: Path | None,
    batches: str,
    workspace_limit: int,
    timing_cache: Path | None,
    capabilities: tuple[str, ...],
) -> None:
    """Build the TensorRT plan of ENGINE: an ONNX file, or an engine of the workspace.

    The precision is that of the graph. A plan runs only with the TensorRT version and the kind of
    GPU for which it was built. Exit code 3 if TensorRT or its driver is missing.
    """
    from lesiontk.api.engine import Engine

    built = Engine(session.open_workspace(), engine).build(
        out,
        batches=parse_batches(batches),
        workspace_limit=workspace_limit,
        timing_cache=timing_cache,
        capabilities=capabilities,
    )
    session.emit(built.to_document(), lambda: _show(built))


def parse_batches(text: str) -> tuple[int, int, int]:
    """Return the three numbers of ``1,4,16``. Raises `UsageError` for other text."""
    try:
        least, usual, greatest = map(int, text.split(","))
    except ValueError as error:
        raise UsageError(
            f"--batches is {text!r}; expected three batch sizes MIN,OPT,MAX, such as 1,4,16."
        ) from error
    return least, usual, greatest


def _show(built: BuiltFile) -> None:
    from lesiontk.report.formatting import format_bytes

    least, usual, greatest = built.batches
    many = f"batches of {least} to {greatest} images, tuned for {usual}"
    where = f", on {', '.join(built.capabilities)}" if built.capabilities else ""
    print_text(
        f"{built.path}: {format_bytes(built.bytes)}, built by {built.builder} for "
        f"{many if greatest > 1 else 'one image at a time'}{where}"
    )
    types = ", ".join(f"{count} in {kind}" for kind, count in built.operators.items() if count)
    print_text(f"operators of its graph: {types}; the kernels are chosen on the GPU that loads it")
