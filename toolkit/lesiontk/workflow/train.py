"""From a recipe to its model: the plan, the data steps, training, or a model from elsewhere."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from lesiontk.errors import UsageError
from lesiontk.files.regular_file import resolve_path
from lesiontk.recipe import Recipe, override_recipe, read_recipe
from lesiontk.records import Artefact
from lesiontk.store import Store
from lesiontk.train.distribution import check_distribution
from lesiontk.train.tf_config import read_cluster
from lesiontk.workflow.lineage import locate_teachers
from lesiontk.workflow.plan import plan_recipe
from lesiontk.workflow.runner import build_step, run_plan
from lesiontk.workflow.steps import Plan


def run_recipe(store: Store, recipe: Recipe) -> dict[str, Artefact]:
    """Build everything from images to report; returns the artefacts by step name.

    Raises `UsageError` for a training that several workers share: what follows it is for one.
    """
    if recipe.train.distribute == "multi_worker":
        raise UsageError(
            "train.distribute is multi_worker, which `lesiontk run` does not share out; expected "
            "`lesiontk train` on every worker, then `lesiontk quantize --int8` and `lesiontk "
            "bench` on the first, whose workspace has the model."
        )
    check_distribution(recipe.train)
    return run_plan(plan_run(store, recipe), store)


def plan_run(store: Store, recipe: Recipe, *, gated: bool = True) -> Plan:
    """Return the checked plan of a recipe, with the files of the teachers that it names.

    Without `gated` nothing will be judged, so the gates may be of another task.
    """
    _keep_apart(store, recipe)
    return plan_recipe(locate_teachers(store, recipe), gated=gated)


def build_data(store: Store, recipe: Recipe, step: str) -> Artefact:
    """Build one of the data steps: ``inspection``, ``split`` or ``images``.

    The images are those of the last model, which compression may have given smaller ones.
    """
    plan = plan_run(store, recipe, gated=False)
    name = plan[plan.model].parents["images"] if step == "images" else step
    return build_step(plan, name, store, {})


def train_recipe(store: Store, recipe: Recipe, *, restart: bool = False) -> Artefact:
    """Build the recipe's model: training, and compression where the recipe has it.

    With `restart` an unfinished training of it begins anew. Where TF_CONFIG makes this process one
    of several workers (``train.distribute: multi_worker``), each calls this: all prepare the images
    and get the same model, the first in the workspace, the others in `Store.for_worker`.
    """
    plan = plan_run(store, recipe)
    check_distribution(recipe.train)
    if recipe.train.distribute == "multi_worker":
        store = store.for_worker(read_cluster().index)
    return build_step(plan, plan.model, store, {}, restart=restart)


def import_file(
    store: Store,
    file: Path,
    *,
    data: Path | None,
    task: str | None,
    pixels: str,
    labels: Sequence[str] = (),
    recipe: str | None = None,
    overrides: Iterable[str] = (),
) -> Artefact:
    """Take a model that was trained elsewhere into the workspace, in the place of training.

    With `recipe` it is taken as that recipe's model: task, gate and what is done about rare classes
    are the recipe's, so that compressing it goes on as if it had been trained here.

    Its validation and test images are those of the split of `data`: what the model has seen of them
    is not known here, and all that is made of it says so. A file that lesiontk wrote tells its
    split, and `DataError` is raised for any other. Raises `UsageError` without images, for int8 is
    calibrated on them; synthetic ones must be asked for (``data.source=synthetic``).
    """
    from lesiontk.data.tasks import load_task
    from lesiontk.models.imported_file import load_foreign_model
    from lesiontk.models.imported_model import check_finite, input_size, match_labels

    source = load_foreign_model(file)
    check_finite(source)  # before the images are prepared
    size = input_size(source, file)
    overrides = list(overrides)
    if (
        size is None
        and recipe is None
        and not any(override.startswith("data.image_size=") for override in overrides)
    ):
        raise UsageError(
            f"{file.name} takes images of any size; expected the one that it was trained on: "
            "--set data.image_size=S."
        )
    section = {"file": str(file.resolve()), "pixels": pixels, "labels": tuple(labels)}
    if recipe is None:
        name = re.sub(r"[^a-z0-9]+", "_", file.stem.lower()).strip("_") or "imported"
        described = Recipe(name=name, description=f"Imported from {file.name}.")
    else:
        described = read_recipe(recipe)
    changes = [f"imported={json.dumps(section)}"]
    if size is not None:
        changes.append(f"data.image_size={size}")
    if task is not None:
        changes.append(f"data.task={json.dumps(task)}")
    if data is not None:
        changes.append(f"data.path={json.dumps(str(data.resolve()))}")
    made = override_recipe(described, [*changes, *overrides])
    if made.data.path is None and made.data.source != "synthetic":
        raise UsageError(
            f"{file.name} came without images; expected --data DIR with those that it was trained "
            "on, or with images like them, for int8 is calibrated on them. To try the commands "
            "alone, --set data.source=synthetic takes made-up ones."
        )
    if labels:
        match_labels(labels, load_task(made.data.task).labels)
    return train_recipe(store, made)


def _keep_apart(store: Store, recipe: Recipe) -> None:
    """Refuse a workspace among the images: its own pictures would become part of the data."""
    if recipe.data.path is None:
        return
    data = resolve_path(recipe.data.path, "data folder")
    workspace = resolve_path(store.workspace, "workspace")
    if workspace == data or workspace.is_relative_to(data):
        raise UsageError(
            f"the workspace {store.workspace} lies in the data folder {recipe.data.path}; expected "
            "it elsewhere: name another with --workspace."
        )
