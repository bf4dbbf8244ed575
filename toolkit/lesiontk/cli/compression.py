"""What the commands of single compressions share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from lesiontk.cli.session import Session, say
from lesiontk.cli.tables import format_bytes


def compress(
    session: Session,
    model: str,
    technique: str,
    options: Mapping[str, Any],
    describe: Callable[[Mapping[str, Any]], str],
    overrides: Iterable[str] = (),
    data: Path | None = None,
) -> None:
    """Apply a compression to the model of this name and say, by its facts, what came of it."""
    from lesiontk.workflow.compress import compress_model

    store = session.open_store()
    made = compress_model(
        store, store.resolve(model, "model"), technique, options, overrides, data=data
    )
    session.emit(
        {"model": made.name, "path": str(made.path), **made.facts},
        lambda: say(f"{made.name}: {describe(made.facts)}"),
    )


def describe_validation(facts: Mapping[str, Any]) -> str:
    """Return how good the model is on validation."""
    scores = facts["validation"]
    return f"validation balanced accuracy {scores['balanced_accuracy']:.3f} (n = {scores['n']})"


def describe_footprint(footprint: Mapping[str, Any]) -> str:
    """Return what a compression changed on a device, beside the model it was made of."""
    before, after = footprint["before"], footprint["after"]
    return (
        f"as {footprint['engine']} {format_bytes(after['deflated_bytes'])} deflated (before "
        f"{format_bytes(before['deflated_bytes'])}), {after['median_ms']:.2f} ms (before "
        f"{before['median_ms']:.2f} ms, n = {footprint['n']})"
    )
