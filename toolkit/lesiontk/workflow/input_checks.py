"""Checks of an engine's input."""

from __future__ import annotations

from collections.abc import Mapping

from lesiontk.backends import returns_features
from lesiontk.backends.engine_facts import EngineFacts
from lesiontk.records import Artefact
from lesiontk.stage import StepId
from lesiontk.stages import STAGES
from lesiontk.stages.input_checks import InputChecksConfig
from lesiontk.store import Store
from lesiontk.workflow.lineage import find_engine, resolve_latest


def fit_input_checks(store: Store, engine: Artefact, config: InputChecksConfig) -> Artefact:
    """Return the input checks of an engine, fitted on the images of its own split.

    Raises `UsageError` for an engine whose back end cannot return features.
    """
    parents = {"engine": engine, "images": store.parent(engine, "images")}
    stage = STAGES.get("input_checks")()
    return store.build(stage, config, parents, recipe=engine.manifest.recipe)


def resolve_checkable(store: Store, reference: str) -> str:
    """Return the reference of an engine; of the latest ones that of one that can return features.

    Raises `UsageError` if there is none.
    """
    return resolve_latest(
        store,
        reference,
        lambda facts: returns_features(facts.backend),
        f"no engine in {store.workspace} that fits {reference!r} can return features",
    )


def checks_for_bundle(store: Store, engine: Artefact) -> Artefact | None:
    """Return the last used input checks of an engine, or those with the default rates.

    None for an engine whose back end cannot return features.
    """
    if not returns_features(engine.read_facts(EngineFacts).backend):
        return None
    return _last_used(store, engine) or fit_input_checks(store, engine, InputChecksConfig())


def input_checks_of(store: Store, engines: Mapping[str, Artefact]) -> dict[StepId, Artefact]:
    """Return ``input_checks:TARGET`` -> the last used ones of each of `engines` that has any."""
    found = {target: _last_used(store, engine) for target, engine in engines.items()}
    return {StepId("input_checks", t): checks for t, checks in found.items() if checks}


def find_input_checks(store: Store, reference: str) -> Artefact | None:
    """Return the last used input checks of an engine of the workspace, or None."""
    found = find_engine(store, reference)
    return found and _last_used(*found)


def _last_used(store: Store, engine: Artefact) -> Artefact | None:
    for checks in store.list_artefacts("input_checks"):
        fitted_on = checks.manifest.parents["engine"].content
        if fitted_on == engine.content and store.damage(checks.path) is None:
            return checks
    return None
