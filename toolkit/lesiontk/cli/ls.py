"""``lesiontk ls``."""

from __future__ import annotations

import time

import click

from lesiontk.cli.session import Session, command_options, print_text


@click.command()
@click.option("--kind", help="Only this kind, such as model or engine.")
@click.option("--remote", is_flag=True, help="List those of the shared store instead.")
@command_options
def ls(session: Session, kind: str | None, remote: bool) -> None:
    """List the workspace's artefacts, most recently used first, and failures."""
    from lesiontk.cli.tables import print_table
    from lesiontk.report.formatting import format_bytes
    from lesiontk.workflow.listing import list_workspace

    store = session.open_store()
    artefacts = list_workspace(store, kind, remote=remote)
    failures = [] if remote else store.failures()

    def show() -> None:
        rows = [
            [
                a.name,
                a.what,
                a.recipe,
                format_bytes(a.bytes),
                time.strftime("%Y-%m-%d %H:%M", time.localtime(a.created)),
            ]
            for a in artefacts
        ]
        print_table(["artefact", "what", "recipe", "size", "made"], rows)
        for failure in failures:
            print_text(f"failed: {failure.kind}: {failure.error}")

    document = {
        "artefacts": [artefact.to_document() for artefact in artefacts],
        "failures": [failure.model_dump(include={"kind", "error"}) for failure in failures],
    }
    session.emit(document, show)
