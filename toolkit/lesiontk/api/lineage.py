"""The ancestors of an artefact, as a tree."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any


class Lineage:
    """The ancestors of an artefact, back to the images; `tree` contains the nested documents.

    Printed, each line is an artefact, with its parents by role below it.
    """

    def __init__(self, tree: Mapping[str, Any]) -> None:
        self.tree = tree

    def __str__(self) -> str:
        return "\n".join(_list_lines(self.tree, "", "", set()))

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        return f"<pre>{escape(str(self))}</pre>"


def _list_lines(node: Mapping[str, Any], role: str, indent: str, seen: set[str]) -> Iterator[str]:
    """Yield a node and its ancestors; a repeated one without its ancestors."""
    parents = node.get("parents", {})
    shown = node["name"] in seen and parents
    if node.get("gone") or "changed" in node:
        note = "gone" if node.get("gone") else str(node["changed"])
    else:
        note = "see above" if shown else f"stage {node['stage']}"
    yield f"{indent}{role + ': ' if role else ''}{node['name']}  ({note})"
    seen.add(node["name"])
    for name, parent in () if shown else parents.items():
        yield from _list_lines(parent, name, indent + "  ", seen)
