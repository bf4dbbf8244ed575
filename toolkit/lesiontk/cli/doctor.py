"""``lesiontk doctor``."""

from __future__ import annotations

import click

from lesiontk.cli.session import Session, command_options


@click.command()
@command_options
def doctor(session: Session) -> None:
    """Tell what this machine can run, why not the rest, and what its CPU does with int8."""
    from lesiontk.doctor import examine_machine

    findings = examine_machine()

    def show() -> None:
        machine = findings["machine"]
        click.echo(f"lesiontk {findings['lesiontk']}, Python {machine['python']}")
        click.echo(f"{machine['processor']}, {machine['cores']} cores, {machine['architecture']}")
        click.echo(findings["int8"])
        for backend in findings["backends"]:
            state = "runs here" if backend["available"] else f"not here: {backend['reason']}"
            click.echo(f"{backend['name']:8} {', '.join(backend['precisions']):16} {state}")
            for name, version in backend["versions"].items():
                click.echo(f"{'':9}{name} {version}")

    session.emit(findings, show)
