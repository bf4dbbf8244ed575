"""The model of a recipe: the plan, the data steps, training, or an imported model."""

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
from lesiontk.workflow.executor import HERE, Executor
from lesiontk.workflow.lineage import locate_teachers
from lesiontk.workflow.plan import plan_recipe
from lesiontk.workflow.runner import build_step, run_plan
from lesiontk.workflow.steps import Plan


def run_recipe(store: Store, recipe: Recipe, executor: Executor = HERE) -> dict[str, Artefact]:
    """Build everything from images to report, and return the artefacts by step name.

    Raises `UsageError` for multi-worker training, because the later steps use one worker.
    """
    check_workers(recipe)
    return run_plan(plan_run(store, recipe), store, executor)


def check_workers(recipe: Recipe) -> None:
    """Raise `UsageError` for a training that a whole run cannot distribute."""
    if recipe.train.distribute == "multi_worker":
        raise UsageError(
            "train.distribute is multi_worker, which `lesiontk run` does not support; expected "
            "`lesiontk train` on every worker, then `lesiontk quantize --int8` and `lesiontk "
            "bench` on the first, whose workspace has the model."
        )
    check_distribution(recipe.train)


def plan_run(store: Store, recipe: Recipe, *, gated: bool = True) -> Plan:
    """Return the checked plan of a recipe, with the files of its teachers.

    Without `gated` no engine is tested, so the gates may be those of another task.
    """
    _keep_apart(store, recipe)
    return plan_recipe(locate_teachers(store, recipe), gated=gated)


def build_data(store: Store, recipe: Recipe, step: str) -> Artefact:
    """Build one of the data steps: ``inspection``, ``split`` or ``images``.

    The images are those of the last model, which may be smaller after compression.
    """
    plan = plan_run(store, recipe, gated=False)
    name = plan[plan.model].parents["images"] if step == "images" else step
    return build_step(plan, name, store, {})


def train_recipe(store: Store, recipe: Recipe, *, restart: bool = False) -> Artefact:
    """Build the recipe's model: training, and compression where the recipe has it.

    With `restart` an unfinished training starts again. In multi-worker training
    (``train.distribute: multi_worker`` with TF_CONFIG) every worker calls this: all prepare the
    images and get the same model, the first in the workspace, the others in `Store.for_worker`.
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
    """Import a model trained elsewhere into the workspace, instead of training.

    With `recipe` it becomes that recipe's model: task, gates and the handling of rare classes are
    the recipe's, also in later compression. Its validation and test images are those of the split
    of `data`: whether the model has seen them is unknown, and its descendants record this. A file
    of lesiontk contains its split; `DataError` is raised for another one. Raises `UsageError`
    without images, because int8 is calibrated on them; synthetic ones must be requested
    (``data.source=synthetic``).
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
            f"{file.name} accepts images of any size; specify the size of its training: --set "
            "data.image_size=S."
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
            f"{file.name} was specified without images; expected --data DIR with those of its "
            "training, or similar ones, because int8 is calibrated on them. To try the commands "
            "only, use synthetic images with --set data.source=synthetic."
        )
    if labels:
        match_labels(labels, load_task(made.data.task).labels)
    return train_recipe(store, made)


def _keep_apart(store: Store, recipe: Recipe) -> None:
    """Raise `UsageError` for a workspace among the images, whose own images would become data."""
    if recipe.data.path is None:
        return
    data = resolve_path(recipe.data.path, "data folder")
    workspace = resolve_path(store.workspace, "workspace")
    if workspace == data or workspace.is_relative_to(data):
        raise UsageError(
            f"the workspace {store.workspace} is in the data folder {recipe.data.path}; expected "
            "another folder: specify one with --workspace."
        )
