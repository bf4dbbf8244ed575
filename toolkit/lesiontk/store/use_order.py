"""The order in which the artefacts of a workspace were last used, independent of clocks.

File times change when a workspace is copied, touched or moved to a machine with another clock. A
file beside the artefacts lists each of them once, most recently used last.
"""

from __future__ import annotations

from pathlib import Path

USE_ORDER = ".use_order"
"""The file's name; every workspace with an artefact that was built there has it."""


class UseOrder:
    """The order file of one workspace; writing it requires a lock of the workspace."""

    def __init__(self, workspace: Path) -> None:
        self._path = workspace / USE_ORDER

    def read(self) -> dict[str, int]:
        """Return each artefact's name with its rank; a higher rank was used later."""
        try:
            lines = self._path.read_text(encoding="utf-8", errors="replace").splitlines()
        except FileNotFoundError:
            return {}
        return {name: rank for rank, name in enumerate(lines)}

    def put_last(self, name: str) -> None:
        """Make this artefact the most recently used; the file is replaced atomically."""
        names = [known for known in self.read() if known != name]
        temporary = self._path.with_suffix(".tmp")
        temporary.write_text("".join(f"{known}\n" for known in [*names, name]), encoding="utf-8")
        temporary.replace(self._path)
