"""``lesiontk lineage``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from lesiontk.cli.session import Session, command_options


@click.command()
@click.argument("reference", default="latest")
@command_options
def lineage(session: Session, reference: str) -> None:
    """Show what REFERENCE was made from, back to the images."""
    store = session.open_store()
    tree = store.lineage(store.resolve(reference))
    session.emit(tree, lambda: _print_tree(tree, "", ""))


def _print_tree(node: Mapping[str, Any], role: str, indent: str) -> None:
    note = " (gone)" if node.get("gone") else f"  stage {node['stage']}"
    click.echo(f"{indent}{role + ': ' if role else ''}{node['name']}{note}")
    for name, parent in node.get("parents", {}).items():
        _print_tree(parent, name, indent + "  ")
