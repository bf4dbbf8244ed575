"""``lesiontk lineage``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from lesiontk.cli.session import Session, command_options, say


@click.command()
@click.argument("reference", required=False)
@command_options
def lineage(session: Session, reference: str | None) -> None:
    """Show what REFERENCE (default: the latest model) was made from, back to the images."""
    store = session.open_store()
    artefact = store.resolve("latest", "model") if reference is None else store.resolve(reference)
    if reference is None:
        say(f"lineage of {artefact.name}, the latest model", err=True)
    tree = store.lineage(artefact)
    session.emit(tree, lambda: _print_tree(tree, "", "", set()))


def _print_tree(node: Mapping[str, Any], role: str, indent: str, seen: set[str]) -> None:
    """Print a node and its ancestors; what was printed before is only named."""
    parents = node.get("parents", {})
    shown = node["name"] in seen and parents
    if node.get("gone") or "changed" in node:
        note = "gone" if node.get("gone") else str(node["changed"])
    else:
        note = "see above" if shown else f"stage {node['stage']}"
    say(f"{indent}{role + ': ' if role else ''}{node['name']}  ({note})")
    seen.add(node["name"])
    for name, parent in () if shown else parents.items():
        _print_tree(parent, name, indent + "  ", seen)
