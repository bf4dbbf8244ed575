"""``lesiontk quantize``."""

from __future__ import annotations

import click

from lesiontk.cli.engines import show_engines
from lesiontk.cli.session import Session, command_options, set_option


@click.command()
@click.argument("model", default="latest")
@click.option("--int8", is_flag=True, help="8-bit weights and activations, after training.")
@click.option(
    "--mixed",
    is_flag=True,
    help="int8 except the most sensitive layers: the fewest in float32 that meet the gate on "
    "validation.",
)
@click.option(
    "--reduce-range",
    is_flag=True,
    help="7-bit weights for ONNX Runtime, whose kernels overflow on x86 CPUs without VNNI.",
)
@set_option
@command_options
def quantize(
    session: Session,
    model: str,
    int8: bool,
    mixed: bool,
    reduce_range: bool,
    overrides: tuple[str, ...],
) -> None:
    """Quantize MODEL (default: the latest) to int8 on every back end for this machine.

    Ranges are measured on training images only; each engine is verified against its parent. A back
    end without an int8 form of one of the model's operators is reported; the other engines are
    made.
    """
    from lesiontk.errors import UsageError
    from lesiontk.workflow.convert import find_fault, quantize_model

    precisions = [name for name, chosen in (("int8", int8), ("mixed", mixed)) if chosen]
    if not precisions:
        raise UsageError("Specify --int8 or --mixed: `lesiontk quantize --int8`.")
    if reduce_range:
        overrides = (*overrides, "quantize.reduce_range=true")
    store = session.open_store()
    engines, refused = quantize_model(store, store.resolve(model, "model"), precisions, overrides)
    if engines:
        show_engines(session, engines, refused=refused)
    if (fault := find_fault(engines, refused)) is not None:
        raise fault
