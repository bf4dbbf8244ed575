"""``lesiontk lineage``."""

from __future__ import annotations

import click

from lesiontk.cli.session import Session, command_options, print_text


@click.command()
@click.argument("reference", required=False)
@command_options
def lineage(session: Session, reference: str | None) -> None:
    """Show what REFERENCE (default: the latest model) was made from, back to the images."""
    from lesiontk.api.lineage import Lineage

    store = session.open_store()
    artefact = store.resolve("latest", "model") if reference is None else store.resolve(reference)
    if reference is None:
        print_text(f"lineage of {artefact.name}, the latest model", err=True)
    found = Lineage(store.lineage(artefact))
    session.emit(found.tree.to_document(), lambda: print_text(found))
