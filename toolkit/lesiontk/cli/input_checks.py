"""``lesiontk input-checks``."""

from __future__ import annotations

import click

from lesiontk.cli.session import Session, command_options, print_text


@click.command("input-checks")
@click.argument("engine", default="latest")
@click.option(
    "--quality-rate",
    type=click.FloatRange(0, 0.5, min_open=True, max_open=True),
    default=0.01,
    show_default=True,
    help="Share of training images beyond the bounds of image quality.",
)
@click.option(
    "--domain-rate",
    type=click.FloatRange(0, 0.5, min_open=True, max_open=True),
    default=0.02,
    show_default=True,
    help="Share of validation images refused as out of domain.",
)
@command_options
def input_checks(session: Session, engine: str, quality_rate: float, domain_rate: float) -> None:
    """Fit checks of ENGINE's input (default: the latest): image quality, and the domain.

    A picture is then accepted, of poor quality, or out of domain: unlike the dermoscopic images
    that the network was trained on. All is fitted on training and validation images with the
    engine's own outputs; test images show whom the checks refuse.
    """
    from lesiontk.cli.tables import print_table
    from lesiontk.workflow.input_checks import resolve_checkable

    workspace = session.open_workspace()
    found = workspace.engine(resolve_checkable(workspace.store, engine)).fit_input_checks(
        quality_rate=quality_rate, domain_rate=domain_rate
    )
    facts = found.record

    def show() -> None:
        print_table(
            ["test images", "n", "poor quality", "out of domain", "refused", "95 % bound"],
            [
                [
                    row.label,
                    str(row.n),
                    str(row.poor_quality),
                    str(row.out_of_domain),
                    f"{row.share:.1%}",
                    f"{row.upper:.1%}",
                ]
                for row in facts.classes
            ],
            title=f"{found.artefact.name}: {facts.score}",
        )
        print_table(
            ["not dermoscopic", "n", "poor quality", "out of domain", "refused", "AUROC"],
            [
                [
                    row.family + ("" if row.chosen_on else " (unseen)"),
                    str(row.n),
                    str(row.poor_quality),
                    str(row.out_of_domain),
                    f"{row.share:.1%}",
                    f"{row.auroc:.3f}",
                ]
                for row in facts.families
            ],
        )
        print_text(found.caption)

    session.emit(found.document, show)
