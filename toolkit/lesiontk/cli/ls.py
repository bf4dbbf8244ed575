"""``lesiontk ls``."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from lesiontk.cli.session import Session, command_options, say

if TYPE_CHECKING:
    from lesiontk.records import Artefact


def _describe(artefact: Artefact) -> str:
    """Return a model's derivation, or what else was made of it."""
    from lesiontk.workflow.lineage import describe_derivation

    if artefact.kind == "model":
        return describe_derivation(artefact)
    facts = artefact.facts
    return str(facts.get("target", facts.get("backend", "")))


def _check_kind(kind: str) -> None:
    """Raise `UsageError` if no stage makes artefacts of this kind."""
    from lesiontk.errors import UsageError, show_value, suggest
    from lesiontk.stages import STAGES

    kinds = sorted({stage.info.produces for _, stage in STAGES.items()})
    if kind not in kinds:
        raise UsageError(
            f"--kind {show_value(kind)} is no kind of artefact; expected one of "
            f"{', '.join(kinds)}.{suggest(kind, kinds)}"
        )


@click.command()
@click.option("--kind", help="Only this kind, as model or engine.")
@command_options
def ls(session: Session, kind: str | None) -> None:
    """List the workspace's artefacts, the last used first, and what failed."""
    from lesiontk.cli.tables import print_table
    from lesiontk.report.formatting import format_bytes

    store = session.open_store()
    found = store.list_artefacts(kind)
    if kind is not None and not found:
        _check_kind(kind)
    artefacts = [
        {
            "name": a.name,
            "kind": a.kind,
            "recipe": a.recipe_name,
            "what": _describe(a),
            "bytes": sum(entry["bytes"] for entry in a.manifest["files"].values()),
            "created": a.manifest["created"],
            "path": str(a.path),
        }
        for a in found
    ]
    failures = [{"kind": f["kind"], "error": f["error"]} for f in store.failures()]

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
            say(f"failed: {failure['kind']}: {failure['error']}")

    session.emit({"artefacts": artefacts, "failures": failures}, show)
