"""The ancestors of an artefact, as a tree."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from lesiontk.records import Ancestry


class Lineage:
    """The ancestors of an artefact, back to the images; `tree` contains them as records.

    Printed, each line is an artefact, with its parents by role below it.
    """

    def __init__(self, tree: Ancestry) -> None:
        self.tree = tree

    def __str__(self) -> str:
        return "\n".join(_list_lines(self.tree, "", "", set()))

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        return f"<pre>{escape(str(self))}</pre>"


def _list_lines(node: Ancestry, role: str, indent: str, seen: set[str]) -> Iterator[str]:
    """Yield a node and its ancestors; a repeated one without its ancestors."""
    shown = node.name in seen and bool(node.parents)
    note = "see above" if shown else f"stage {node.stage}"
    if node.gone or node.changed:
        note = node.changed or "gone"
    yield f"{indent}{role + ': ' if role else ''}{node.name}  ({note})"
    seen.add(node.name)
    for name, parent in () if shown else node.parents.items():
        yield from _list_lines(parent, name, indent + "  ", seen)
