"""Checks of an engine's input."""

from __future__ import annotations

from lesiontk.records import Artefact
from lesiontk.stages import STAGES
from lesiontk.stages.input_checks import InputChecksConfig
from lesiontk.store import Store


def fit_input_checks(store: Store, engine: Artefact, config: InputChecksConfig) -> Artefact:
    """Return the input checks of an engine, fitted on the images of its own split.

    Raises `UsageError` for an engine whose back end cannot return features.
    """
    parents = {"engine": engine, "images": store.parent(engine, "images")}
    stage = STAGES.get("input_checks")()
    return store.build(stage, config, parents, recipe=engine.manifest["recipe"])
