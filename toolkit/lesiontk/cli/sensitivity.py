"""``lesiontk sensitivity``."""

from __future__ import annotations

import click

from lesiontk.cli.session import Session, command_options, print_text, set_option


@click.command()
@click.argument("model", default="latest")
@click.option(
    "--on",
    "backend",
    default="tflite",
    show_default=True,
    metavar="BACKEND",
    help="The back end for int8; it must have the precision mixed.",
)
@set_option
@command_options
def sensitivity(session: Session, model: str, backend: str, overrides: tuple[str, ...]) -> None:
    """Measure the effect of int8 on each layer of MODEL (default: the latest) alone.

    Then search the fewest layers that must stay in float32 (on TensorRT in float16) to meet the
    recipe's gate on validation, with at most --set sensitivity.trials=N trials;
    `lesiontk quantize --mixed`, or `convert --to BACKEND:mixed`, makes that engine.
    """
    from lesiontk.cli.tables import print_table
    from lesiontk.report.wording import shorten_name

    found = session.open_workspace().model(model).sensitivity(backend, set=overrides)
    made, rows, facts = found.artefact, found.rows, found.record

    def show() -> None:
        print_table(
            ["layer in int8 alone", "mean drift", "top-1 kept", "balanced accuracy"],
            [
                [
                    shorten_name(row.layer),
                    f"{row.mean_drift:.5f}",
                    f"{row.top1_agreement:.3f}",
                    f"{row.balanced_accuracy:+z.3f}",
                ]
                for row in rows[:20]
            ],
            title=f"{made.name}: the most sensitive of {len(rows)} layers on {backend} "
            f"(n = {facts.images} validation images)",
        )
        print_text(facts.outcome)
        for name, layers in (("kept", facts.kept), ("next", facts.untried)):
            if layers:
                print_text(f"{name}: {', '.join(map(shorten_name, layers))}")

    session.emit(found.document, show)
