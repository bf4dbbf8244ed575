"""The base of the objects of a workspace: name, folder, facts, ancestors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lesiontk.records import Artefact

if TYPE_CHECKING:
    from lesiontk.api.data_workspace import DataWorkspace
    from lesiontk.api.lineage import Lineage


class Stored:
    """One artefact of a workspace."""

    def __init__(self, workspace: DataWorkspace, artefact: Artefact) -> None:
        self.workspace = workspace
        self.artefact = artefact

    @property
    def name(self) -> str:
        """The artefact's name, such as ``model-0123456789ab``."""
        return self.artefact.name

    @property
    def path(self) -> Path:
        """The artefact's folder."""
        return self.artefact.path

    @property
    def facts(self) -> Mapping[str, Any]:
        """The facts recorded when it was made, and its measurements."""
        return self.artefact.facts

    def lineage(self) -> Lineage:
        """Return its ancestors, back to the images."""
        from lesiontk.api.lineage import Lineage

        return Lineage(self.workspace.store.lineage(self.artefact))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Stored) and (
            (self.name, self.artefact.content) == (other.name, other.artefact.content)
        )

    def __hash__(self) -> int:
        return hash((self.name, self.artefact.content))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"


def refer_to(thing: str | Path | Stored) -> str:
    """Return the reference of an object, a path or a name, for the workspace."""
    return str(thing.path if isinstance(thing, Stored) else thing)
