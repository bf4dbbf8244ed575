"""In which order the artefacts of a workspace were last used, whatever its clocks say.

File times change when a workspace is copied, touched or carried to a machine with another clock.
A file beside the artefacts names each of them once, the last used at the end.
"""

from __future__ import annotations

from pathlib import Path


class UseOrder:
    """The file of one workspace; whoever writes it holds a lock of the workspace."""

    def __init__(self, workspace: Path) -> None:
        self._path = workspace / ".use_order"

    def read(self) -> dict[str, int]:
        """Return each artefact's name with its rank: the higher, the later it was used."""
        try:
            lines = self._path.read_text(encoding="utf-8", errors="replace").splitlines()
        except FileNotFoundError:
            return {}
        return {name: rank for rank, name in enumerate(lines)}

    def put_last(self, name: str) -> None:
        """Make this artefact the last used one; the file is replaced as a whole."""
        names = [known for known in self.read() if known != name]
        temporary = self._path.with_suffix(".tmp")
        temporary.write_text("".join(f"{known}\n" for known in [*names, name]), encoding="utf-8")
        temporary.replace(self._path)
