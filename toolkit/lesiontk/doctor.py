"""What this machine can run."""

from __future__ import annotations

from typing import Any

from lesiontk import __version__
from lesiontk.backends import BACKENDS
from lesiontk.bench.machine import describe_machine, explain_int8


def examine_machine() -> dict[str, Any]:
    """Return the machine, each back end with its precisions and availability, and int8's worth."""
    machine = describe_machine()
    backends = []
    for name, backend in BACKENDS.items():
        state = backend().available()
        backends.append(
            {
                "name": name,
                "precisions": list(backend.info.precisions),
                "available": state.available,
                "reason": state.reason,
                "versions": dict(state.versions),
            }
        )
    return {
        "lesiontk": __version__,
        "machine": machine,
        "int8": explain_int8(machine["int8_features"], machine["architecture"]),
        "backends": backends,
    }
