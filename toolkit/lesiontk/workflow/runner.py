"""Execution of a plan: each step after its parents, with reuse of existing artefacts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lesiontk.errors import DataError
from lesiontk.records import Artefact
from lesiontk.store import Store
from lesiontk.workflow.executor import HERE, Executor, StepBuild
from lesiontk.workflow.steps import Plan


def build_step(
    plan: Plan,
    name: str,
    store: Store,
    done: dict[str, Artefact],
    *,
    restart: bool = False,
    executor: Executor = HERE,
) -> Artefact:
    """Return the artefact of one step, with those that it requires.

    `done` contains known artefacts by step name; new ones are added. `restart` discards the
    unfinished work of a killed process on this step.
    """
    if name not in done:
        step = plan[name]
        parents = {
            role: build_step(plan, which, store, done, executor=executor)
            for role, which in step.parents.items()
        }
        done[name] = executor.build(StepBuild(store, step, parents, _document(plan), restart))
    return done[name]


def run_plan(plan: Plan, store: Store, executor: Executor = HERE) -> dict[str, Artefact]:
    """Build every step, and return the artefacts by step name."""
    done: dict[str, Artefact] = {}
    for step in plan.steps:
        build_step(plan, step.name, store, done, executor=executor)
    return done


def known_ancestors(artefact: Artefact, store: Store) -> dict[str, Artefact]:
    """Return the data artefacts that a model or engine was made from, by step name.

    They replace the steps of a plan, so that a model is quantized with the images and split of its
    training, even if the original folder no longer exists.
    """
    found: dict[str, Artefact] = {}
    waiting = [artefact]
    while waiting:
        current = waiting.pop()
        for role in current.manifest.parents:
            try:
                parent = store.parent(current, role)
            except DataError:
                if role in ("images", "split", "source"):
                    raise
                continue  # an ancestor that no later step reads, such as the generated data set
            if parent.kind in ("images", "split", "inspection", "dataset"):
                found[parent.kind] = parent
            waiting.append(parent)
    return found


def _document(plan: Plan) -> Mapping[str, Any]:
    return plan.recipe.model_dump(mode="json")
