"""Output of converted engines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lesiontk.cli.session import Session, print_text

if TYPE_CHECKING:
    from lesiontk.records import Artefact


def show_engines(
    session: Session,
    engines: Mapping[str, Artefact],
    bundles: Mapping[str, Artefact] | None = None,
    refused: Mapping[str, Exception] | None = None,
) -> None:
    """Print target, size, agreement with the parent and file of each engine.

    `bundles` is device -> its folder, `refused` target -> the reason.
    """

    from lesiontk.backends.engine_facts import EngineFacts
    from lesiontk.cli.tables import print_table
    from lesiontk.deploy.bundle import BundleFacts
    from lesiontk.report.formatting import format_bytes

    known = {target: engine.read_facts(EngineFacts) for target, engine in engines.items()}
    bundled = {device: made.read_facts(BundleFacts) for device, made in (bundles or {}).items()}

    def show() -> None:
        rows = []
        for target, engine in known.items():
            agreement = engine.verification.agreement
            if agreement is None:  # such an engine is refused
                continue
            rows.append(
                [
                    target,
                    format_bytes(engine.size_bytes),
                    f"{agreement.top1_agreement:.3f} (n = {agreement.n})",
                    f"{agreement.mean_absolute_drift:.4f}",
                    str(engines[target].file(engine.file)),
                ]
            )
        print_table(["engine", "size", "top-1 as its parent", "mean drift", "file"], rows)
        for target, engine in known.items():
            if otherwise := engine.quantization.otherwise_than_trained:
                print_text(
                    f"{target}: {otherwise}; so it was not compared with the fake-quantized "
                    "model of qat"
                )
        for target, reason in (refused or {}).items():
            print_text(f"{target}: not made: {reason}")
        for device, bundle in (bundles or {}).items():
            which = bundled[device].engine
            print_text(f"{which} for {device}: copy {bundle.path} to it; see its README.md")

    document: dict[str, dict[str, Any]] = {
        target: {"artefact": e.name, "path": str(e.file(known[target].file)), **e.facts}
        for target, e in engines.items()
    }
    for target, reason in (refused or {}).items():
        document[target] = {"refused": str(reason)}
    for device, bundle in (bundles or {}).items():
        document[bundled[device].engine].setdefault("bundles", {})[device] = str(bundle.path)
    session.emit(document, show)
