"""How converted engines are shown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lesiontk.cli.session import Session, say

if TYPE_CHECKING:
    from lesiontk.records import Artefact


def show_engines(
    session: Session,
    engines: Mapping[str, Artefact],
    bundles: Mapping[str, Artefact] | None = None,
    refused: Mapping[str, Exception] | None = None,
) -> None:
    """Print target, size, agreement with the parent and file of each engine.

    `bundles` has device -> the folder that goes to it, `refused` target -> why there is none.
    """

    from lesiontk.cli.tables import print_table
    from lesiontk.report.formatting import format_bytes

    def show() -> None:
        rows = []
        for target, engine in engines.items():
            agreement = engine.facts["verification"]["agreement"]
            rows.append(
                [
                    target,
                    format_bytes(engine.facts["size_bytes"]),
                    f"{agreement['top1_agreement']:.3f} (n = {agreement['n']})",
                    f"{agreement['mean_absolute_drift']:.4f}",
                    str(engine.file(engine.facts["file"])),
                ]
            )
        print_table(["engine", "size", "top-1 as its parent", "mean drift", "file"], rows)
        for target, engine in engines.items():
            otherwise = engine.facts.get("quantization", {}).get("otherwise_than_trained")
            if otherwise:
                say(f"{target}: {otherwise}; so its rounding was not compared with qat's")
        for target, reason in (refused or {}).items():
            say(f"{target}: not made: {reason}")
        for device, bundle in (bundles or {}).items():
            which = bundle.facts["engine"]
            say(f"{which} for {device}: copy {bundle.path} to it; README.md says how")

    document: dict[str, dict[str, Any]] = {
        target: {"artefact": e.name, "path": str(e.file(e.facts["file"])), **e.facts}
        for target, e in engines.items()
    }
    for target, reason in (refused or {}).items():
        document[target] = {"refused": str(reason)}
    for device, bundle in (bundles or {}).items():
        document[bundle.facts["engine"]].setdefault("bundles", {})[device] = str(bundle.path)
    session.emit(document, show)
