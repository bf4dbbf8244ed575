"""``lesiontk verify``."""

from __future__ import annotations

import click

from lesiontk.cli.session import Session, command_options


@click.command()
@click.argument("reference", required=False)
@click.option("--all", "everything", is_flag=True, help="Check the files of every artefact.")
@command_options
def verify(session: Session, reference: str | None, everything: bool) -> None:
    """Check REFERENCE's files and ancestors; run an engine against its parent again.

    Without REFERENCE: the latest model, its ancestors and every engine of it.
    """
    from lesiontk.verification import verify_artefact, verify_model, verify_workspace

    if everything and reference:
        raise click.UsageError("--all takes no REFERENCE.")
    store = session.open_store()
    if everything:
        findings = verify_workspace(store)
    elif reference:
        findings = verify_artefact(store, store.resolve(reference))
    else:
        model = store.resolve("latest", "model")
        click.echo(f"verifying {model.name}, the latest model, and its engines", err=True)
        findings = verify_model(store, model)

    def show() -> None:
        click.echo(f"{len(findings['intact'])} artefact(s) intact: {', '.join(findings['intact'])}")
        if findings["gone"]:
            click.echo(f"not checked, because they are gone: {', '.join(findings['gone'])}")
        for name, verification in findings["engines"].items():
            for check in verification["checks"]:
                sign = "at least" if check["at_least"] else "at most"
                value = f"{check['value']:.4g} ({sign} {check['bound']:.4g})"
                click.echo(f"{name}: {check['name']}: {value}")

    session.emit(findings, show)
