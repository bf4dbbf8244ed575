"""``lesiontk sensitivity``."""

from __future__ import annotations

import click

from lesiontk.cli.session import Session, command_options, set_option


@click.command()
@click.argument("model", default="latest")
@click.option(
    "--on",
    "backend",
    default="tflite",
    show_default=True,
    metavar="BACKEND",
    help="The back end whose int8 is measured, one with the precision mixed.",
)
@set_option
@command_options
def sensitivity(session: Session, model: str, backend: str, overrides: tuple[str, ...]) -> None:
    """Quantize each layer of MODEL (default: the latest) alone, and see what it changes.

    Then the fewest layers are found that must stay in float32 for the recipe's gate to be met on
    validation; `lesiontk quantize --mixed` makes that engine.
    """
    from lesiontk.cli.tables import print_table
    from lesiontk.compress.sensitivity_stage import rank_layers
    from lesiontk.report.wording import shorten_name
    from lesiontk.workflow import measure_sensitivity

    store = session.open_store()
    made = measure_sensitivity(store, store.resolve(model, "model"), backend, overrides)
    rows, facts = rank_layers(made), made.facts

    def show() -> None:
        print_table(
            ["layer in int8 alone", "mean drift", "top-1 kept", "balanced accuracy"],
            [
                [
                    shorten_name(row["layer"]),
                    f"{row['mean_drift']:.5f}",
                    f"{row['top1_agreement']:.3f}",
                    f"{row['balanced_accuracy']:+.3f}",
                ]
                for row in rows[:20]
            ],
            title=f"{made.name}: the most sensitive of {len(rows)} layers on {backend} "
            f"(n = {facts['images']} validation images)",
        )
        kept = facts["kept"]
        click.echo(
            f"The gate is met on validation (n = {facts['validation']}) with {len(kept)} of "
            f"{facts['layers']} layers in float32"
            + (f": {', '.join(shorten_name(layer) for layer in kept)}" if kept else "")
        )

    session.emit({"sensitivity": made.name, "path": str(made.path), "rows": rows, **facts}, show)
