"""One compression of an existing model."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lesiontk.recipe import Compression, override_document, override_recipe
from lesiontk.records import Artefact
from lesiontk.store import Store
from lesiontk.technique import find_technique
from lesiontk.workflow.lineage import lineage_of, list_networks, locate_teacher, recipe_of
from lesiontk.workflow.plan import plan_recipe
from lesiontk.workflow.resume import known_models
from lesiontk.workflow.runner import build_step


def compress_model(
    store: Store,
    model: Artefact,
    technique: str,
    options: Mapping[str, Any],
    overrides: Iterable[str] = (),
    *,
    data: Path | None = None,
) -> Artefact:
    """Apply one compression to a model, as the recipe key of the same name in a run.

    `overrides` are ``key=value`` of the technique's options, such as ``recover.epochs=8``. `data`
    is the folder of the images, if it has moved.
    """
    recipe = recipe_of(model)
    if data is not None:
        recipe = override_recipe(recipe, [f"data.path={json.dumps(str(data.resolve()))}"])
    line = lineage_of(store, model)
    # An intermediate model has the whole recipe: later steps are left out.
    so_far = recipe.compress[: len(line) - 1]
    entry = override_document(options, overrides)
    stage = find_technique(technique)
    for name in stage.info.networks:
        if name in entry:
            entry[name] = [str(locate_teacher(store, n)) for n in list_networks(entry[name])]
    longer = recipe.model_copy(update={"compress": (*so_far, Compression(technique, entry))})
    plan = plan_recipe(longer, images_known=True)
    done = known_models(store, plan, line)
    config = plan[plan.model].config
    stage.check(config)
    stage.check_model(model, config)
    return build_step(plan, plan.model, store, done)
