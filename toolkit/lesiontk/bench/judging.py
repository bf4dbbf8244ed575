"""What follows from verdicts: warnings, or the error that ends a command with exit code 1."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from lesiontk.bench.benchmark import FULL_PRECISION
from lesiontk.errors import GateFailedError
from lesiontk.evaluate.verdict import Comparand, GateVerdict, Unresolved

logger = logging.getLogger(__name__)

MORE_LESIONS = "More test lesions or a wider margin would tell (`lesiontk gate power RECIPE`)"
WARN_ONLY = "`--set unresolved=warn` lets what is not shown pass with a warning"
ACCEPT = "`lesiontk bundle --accept-unresolved` takes the engine all the same, and says so in it"


def require_gates(
    verdicts: Sequence[GateVerdict], unresolved: Unresolved, otherwise: str = WARN_ONLY
) -> None:
    """Raise `GateFailedError` naming each verdict that blocks; log the other unresolved ones.

    `otherwise` is the sentence on what lets a gate pass that is not shown.
    """
    blocking = [verdict for verdict in verdicts if verdict.blocks(unresolved)]
    for verdict in verdicts:
        if verdict.unresolved and verdict not in blocking:
            logger.warning("%s", verdict.describe())
    if blocking:
        lines = "; ".join(verdict.describe() for verdict in blocking)
        raise GateFailedError(f"{lines}. {_advise(blocking, otherwise)}.")


def _advise(blocking: Sequence[GateVerdict], otherwise: str) -> str:
    """Return how to mend the first that failed, or what is not shown."""
    failed = [verdict for verdict in blocking if verdict.failed]
    if not failed:
        return f"{MORE_LESIONS}; {otherwise}"
    if any(verdict.comparand is Comparand.DEVICE for verdict in failed):
        return "A smaller network (`lesiontk prune`, `lesiontk resize`) is faster and takes less"
    if any(verdict.comparand is Comparand.VALUE for verdict in failed):
        return "The network must be better, or the bound lower"
    if any(verdict.engine.endswith(f":{FULL_PRECISION}") for verdict in failed):
        return (
            "The compressed network lost it before it was quantized: keep more of it, let it "
            "recover longer, or let a stronger model teach it (lesiontk distill); the report shows "
            "which lesions changed class"
        )
    return (
        "Calibrate on more images or with another observer, or train with quantization in mind; "
        "the report shows which lesions changed class"
    )
