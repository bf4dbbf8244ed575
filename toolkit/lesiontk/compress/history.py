"""What a compressed model says of the models that it was made of."""

from __future__ import annotations

from typing import Any

from lesiontk.compress.kernel_structure import structure_facts
from lesiontk.records import MAY_HAVE_SEEN_TEST, Artefact, tell_unknown

TOLD = (
    "parameters",
    "validation",
    "epochs",
    "teacher",
    "resized",
    "pruned",
    "sparsified",
    "clustered",
    "equalized",
    "qat",
)
"""What of a model's facts its children remember: what equal runs give again, so no latency."""


def inherit_facts(model: Artefact) -> dict[str, Any]:
    """Return what a model made of `model` says of it: architecture, structure, and its history.

    ``history`` has an entry for each model before, the trained one first. Of what may have seen the
    test images, all that is made of it says so.
    """
    facts = model.facts
    own = {name: facts[name] for name in TOLD if name in facts}
    return {
        "architecture": str(facts["architecture"]),
        **tell_unknown(facts.get(MAY_HAVE_SEEN_TEST)),
        **structure_facts(facts),
        "history": [
            *facts.get("history", []),
            {"stage": model.manifest["stage"]["name"], **own},
        ],
    }
