"""``lesiontk verify``."""

from __future__ import annotations

import click

from lesiontk.cli.session import Session, command_options


@click.command()
@click.argument("reference", default="latest")
@command_options
def verify(session: Session, reference: str) -> None:
    """Check REFERENCE's files and ancestors; run an engine against its parent again."""
    from lesiontk.verification import verify_artefact

    store = session.open_store()
    findings = verify_artefact(store, store.resolve(reference))

    def show() -> None:
        click.echo(f"{len(findings['intact'])} artefact(s) intact: {', '.join(findings['intact'])}")
        checks = (findings["verification"] or {}).get("checks", [])
        for check in checks:
            sign = "at least" if check["at_least"] else "at most"
            click.echo(f"{check['name']}: {check['value']:.4g} ({sign} {check['bound']:.4g})")

    session.emit(findings, show)
