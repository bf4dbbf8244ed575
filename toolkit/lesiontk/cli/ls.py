"""``lesiontk ls``."""

from __future__ import annotations

import time

import click

from lesiontk.cli.session import Session, command_options, print_text


@click.command()
@click.option("--kind", help="Only this kind, such as model or engine.")
@command_options
def ls(session: Session, kind: str | None) -> None:
    """List the workspace's artefacts, most recently used first, and failures."""
    from lesiontk.cli.tables import print_table
    from lesiontk.report.formatting import format_bytes
    from lesiontk.workflow.listing import list_workspace

    store = session.open_store()
    artefacts = list_workspace(store, kind)
    failures = [{"kind": f.kind, "error": f.error} for f in store.failures()]

    def show() -> None:
        rows = [
            [
                str(a["name"]),
                str(a["what"]),
                str(a["recipe"]),
                format_bytes(float(a["bytes"])),
                time.strftime("%Y-%m-%d %H:%M", time.localtime(float(a["created"]))),
            ]
            for a in artefacts
        ]
        print_table(["artefact", "what", "recipe", "size", "made"], rows)
        for failure in failures:
            print_text(f"failed: {failure['kind']}: {failure['error']}")

    session.emit({"artefacts": artefacts, "failures": failures}, show)
