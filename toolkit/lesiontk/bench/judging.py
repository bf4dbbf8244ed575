"""The effect of verdicts: warnings, or the error that ends a command with exit code 1."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from lesiontk.bench.benchmark import FULL_PRECISION
from lesiontk.errors import GateFailedError
from lesiontk.evaluate.verdict import Comparand, GateVerdict, Unresolved

logger = logging.getLogger(__name__)

MORE_LESIONS = "Use more test lesions or a wider margin (`lesiontk gate power RECIPE`)"
WARN_ONLY = "`--set unresolved=warn` turns gates that are not shown into warnings"
OVERRIDE = "`lesiontk bundle --research-override` bundles it for research, and records that"


def require_gates(
    verdicts: Sequence[GateVerdict], unresolved: Unresolved, otherwise: str = WARN_ONLY
) -> None:
    """Raise `GateFailedError` naming each verdict that blocks; log the other unresolved ones.

    `otherwise` is the advice for gates that are not shown.
    """
    blocking = [verdict for verdict in verdicts if verdict.blocks(unresolved)]
    for verdict in verdicts:
        if verdict.unresolved and verdict not in blocking:
            logger.warning("%s", verdict.describe())
    if blocking:
        lines = "; ".join(verdict.describe() for verdict in blocking)
        raise GateFailedError(f"{lines}. {_advise(blocking, otherwise)}.")


def _advise(blocking: Sequence[GateVerdict], otherwise: str) -> str:
    """Return the advice for the first failed gate, or for those not shown."""
    failed = [verdict for verdict in blocking if verdict.failed]
    if not failed:
        return f"{MORE_LESIONS}; {otherwise}"
    if any(verdict.comparand is Comparand.DEVICE for verdict in failed):
        return "A smaller network (`lesiontk prune`, `lesiontk resize`) is faster and takes less"
    if any(verdict.comparand is Comparand.VALUE for verdict in failed):
        return "Improve the network, or lower the bound"
    if any(verdict.engine.endswith(f":{FULL_PRECISION}") for verdict in failed):
        return (
            "The loss is that of compression, not of quantization: compress less, fine-tune "
            "longer, or distill from a stronger teacher (lesiontk distill); the report lists the "
            "lesions that changed class"
        )
    return (
        "Calibrate on more images or with another observer, or use quantization-aware training "
        "(lesiontk qat); the report lists the lesions that changed class"
    )
