"""Is an artefact what its manifest says, and an engine what its parent is?"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from lesiontk.backends.engine_facts import EngineFacts
from lesiontk.backends.reference_outputs import engine_file, run_engine
from lesiontk.data.images import open_images
from lesiontk.errors import DataError, GateFailedError
from lesiontk.recipe import VerifyRule
from lesiontk.records import Artefact
from lesiontk.stages.convert import compare_answers, verification_rows
from lesiontk.stages.fake_quant_outputs import run_fake_quantized
from lesiontk.store import Store
from lesiontk.workflow.lineage import descendant_engines, model_of


def verify_artefact(store: Store, artefact: Artefact) -> dict[str, Any]:
    """Check an artefact and its ancestors against their manifests, an engine against its parent.

    Returns the findings: what is ``intact``, which ancestors are ``gone``, and under ``engines``
    (and ``verification``) how an engine agrees. Raises `GateFailedError` if a file was changed, an
    ancestor is not the one that was used, or an engine has drifted.
    """
    findings = _check_files(store, [artefact])
    verification = _verify_engine(store, artefact) if artefact.kind == "engine" else None
    engines = {artefact.name: verification} if verification else {}
    return {
        "artefact": artefact.name,
        **findings,
        "verification": verification,
        "engines": engines,
    }


def verify_workspace(store: Store) -> dict[str, Any]:
    """Check the files of every artefact, and each engine of the latest model against it.

    Returns and raises as `verify_artefact`, and `DataError` for a manifest that was edited;
    ``artefact`` is the model, or None where there is none.
    """
    findings = _check_files(store, [store.resolve(name) for name in store.list_names()])
    model = next(iter(store.list_artefacts("model")), None)
    engines = descendant_engines(store, model) if model else []
    return {
        "artefact": model.name if model else None,
        **findings,
        "verification": None,
        "engines": {engine.name: _verify_engine(store, engine) for engine in engines},
    }


def _check_files(store: Store, artefacts: Iterable[Artefact]) -> dict[str, list[str]]:
    """Return the names of what is intact and of what is gone, of artefacts and their ancestors."""
    waiting = list(artefacts)
    intact: dict[str, None] = {}
    gone: dict[str, None] = {}
    while waiting:
        current = waiting.pop(0)
        if current.name in intact:
            continue
        why = store.damage(current.path)
        if why is not None:
            raise GateFailedError(
                f"{current.name} is not what its manifest says: {why}. Run the command that made "
                "it again; it will be rebuilt."
            )
        intact[current.name] = None
        for role, entry in current.manifest["parents"].items():
            why = store.parent_damage(current, role)
            if why is not None:
                raise GateFailedError(f"{current.name} was made from {entry['name']}, which {why}.")
            try:
                waiting.append(store.parent(current, role))
            except DataError:
                gone[str(entry["name"])] = None
    return {"intact": list(intact), "gone": list(gone)}


def _verify_engine(store: Store, engine: Artefact) -> dict[str, Any]:
    """Run an engine and its parent on the images that it was verified with."""
    images = open_images(store.parent(engine, "images"))
    rule = VerifyRule(**engine.manifest["config"]["verify"])
    rows = verification_rows(images, rule, str(engine.facts["precision"]))
    pixels = images.pixels[rows]
    model = model_of(store, engine)
    expected = run_engine(engine_file(model), pixels, 1)
    received = run_engine(engine_file(engine), pixels, 1)
    compared = engine.read_facts(EngineFacts).verification.rounded_agreement
    rounded = run_fake_quantized(model, engine_file(engine), images, 1) if compared else None
    verification = compare_answers(expected, received, engine_file(engine), rule, rounded)
    if not verification.passed:
        raise GateFailedError(
            f"{engine.name} does not agree with its parent: {verification.describe_failures()}."
        )
    return verification.to_document()
