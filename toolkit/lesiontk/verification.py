"""Is an artefact what its manifest says, and an engine what its parent is?"""

from __future__ import annotations

from typing import Any

from lesiontk.backends.answers import ask_engine, engine_file
from lesiontk.backends.convert_stage import compare_answers, verification_rows
from lesiontk.backends.rounded_answers import ask_rounded
from lesiontk.data.images import open_images
from lesiontk.errors import GateFailedError
from lesiontk.recipe import VerifyRule
from lesiontk.records import Artefact
from lesiontk.relatives import model_of
from lesiontk.store import Store


def verify_artefact(store: Store, artefact: Artefact) -> dict[str, Any]:
    """Check an artefact and its ancestors against their manifests, an engine against its parent.

    Returns the findings; raises `GateFailedError` if a file was changed or an engine has drifted.
    """
    findings: dict[str, Any] = {"artefact": artefact.name, "intact": [], "verification": None}
    waiting, seen = [artefact], set()
    while waiting:
        current = waiting.pop()
        if current.name in seen:
            continue
        seen.add(current.name)
        why = store.damage(current.path)
        if why is not None:
            raise GateFailedError(
                f"{current.name} is not what its manifest says: {why}. Run the command that made "
                "it again; it will be rebuilt."
            )
        findings["intact"].append(current.name)
        for role, entry in current.manifest["parents"].items():
            if (current.path.parent / str(entry["name"])).is_dir():
                waiting.append(store.parent(current, role))
    if artefact.kind == "engine":
        images = open_images(store.parent(artefact, "images"))
        rule = VerifyRule(**artefact.manifest["config"]["verify"])
        rows = verification_rows(images, rule, str(artefact.facts["precision"]))
        pixels = images.pixels[rows]
        model = model_of(store, artefact)
        expected = ask_engine(engine_file(model), pixels, 1)
        received = ask_engine(engine_file(artefact), pixels, 1)
        compared = artefact.facts["verification"].get("rounded_agreement")
        rounded = ask_rounded(model, engine_file(artefact), images, 1) if compared else None
        verification = compare_answers(expected, received, engine_file(artefact), rule, rounded)
        findings["verification"] = verification.to_json()
        if not verification.passed:
            raise GateFailedError(
                f"{artefact.name} does not agree with its parent: "
                f"{verification.describe_failures()}."
            )
    return findings
