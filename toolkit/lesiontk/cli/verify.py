"""``lesiontk verify``."""

from __future__ import annotations

from pathlib import Path

import click

from lesiontk.cli.session import Session, command_options, print_text


@click.command()
@click.argument("reference", required=False)
@click.option(
    "--public-key",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="For a bundle's folder: also check its signature with this Ed25519 key (PEM).",
)
@command_options
def verify(session: Session, reference: str | None, public_key: Path | None) -> None:
    """Check REFERENCE's files and ancestors; compare an engine with its parent again.

    Without REFERENCE: the files of every artefact, and all engines of the latest model. A bundle's
    FOLDER: every file against its checksums.
    """
    if public_key is not None or (reference and (Path(reference) / "SHA256SUMS").is_file()):
        from lesiontk.deploy.verify import verify_bundle

        found = verify_bundle(Path(reference or "."), public_key)
        signed = f", signed by the owner of {found.signed_by}" if found.signed_by else ""
        session.emit(found.to_document(), lambda: print_text(f"{found.files} files intact{signed}"))
        return
    from lesiontk.workflow.verify import verify_artefact, verify_workspace

    store = session.open_store()
    if reference is None:
        findings = verify_workspace(store)
        model = f", and the engines of {findings.artefact}, the latest model"
        print_text(
            f"checked every artefact of {store.workspace}{model if findings.artefact else ''}",
            err=True,
        )
    else:
        findings = verify_artefact(store, store.resolve(reference))

    def show() -> None:
        print_text(f"{len(findings.intact)} artefact(s) intact: {', '.join(findings.intact)}")
        if findings.gone:
            print_text(f"not checked, because they were deleted: {', '.join(findings.gone)}")
        for name, verification in findings.engines.items():
            for check in verification.checks:
                sign = "at least" if check.at_least else "at most"
                value = f"{check.value:.4g} ({sign} {check.bound:.4g})"
                print_text(f"{name}: {check.name}: {value}")

    session.emit(findings.to_document(), show)
