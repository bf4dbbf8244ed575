"""A recipe file for a folder of images: a packaged recipe, adapted to their number."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

from lesiontk.data.image_table import InspectedImage
from lesiontk.data.new_task import (
    FoundClass,
    choose_critical,
    comment,
    find_classes,
    scalar,
    task_text,
)
from lesiontk.data.tasks import load_task, normalize_diagnosis
from lesiontk.errors import LesionTKError, UsageError
from lesiontk.files.strict_yaml import load_yaml
from lesiontk.recipe import (
    DataSection,
    Recipe,
    list_recipes,
    name_from_path,
    read_recipe,
)
from lesiontk.recipe.gate_grammar import DEFAULT_GATES
from lesiontk.stages.inspect_images import read_inspection
from lesiontk.stages.split import read_split
from lesiontk.store import Store
from lesiontk.workflow.train import build_data

PACKAGED_TASKS = ("seven_class", "malignancy")
_WHY = {
    "data": "The images, their classes, and the input size of the network.",
    "model": "`lesiontk doctor` lists the networks; weights: none, imagenet or a file.",
    "train": "Fewer epochs are faster; `patience` ends a training without improvement.",
    "calibration": "Training images on which int8's ranges are measured.",
}


def write_task(
    store: Store, file: Path, data: Path, *, critical: str | None = None, title: str | None = None
) -> list[FoundClass]:
    """Write a task file for the images in `data`, and return their classes.

    Raises `UsageError` if the file exists or the critical class must be specified, `DataError` for
    images without a valid task.
    """
    _check_destination(file)
    classes = find_classes(_inspect(store, data))
    text = task_text(
        classes, choose_critical(classes, critical), title or file.stem, str(data.resolve())
    )
    _write_checked({file: text}, lambda: load_task(file))
    return classes


def write_recipe(
    store: Store,
    file: Path,
    data: Path,
    *,
    task: str | None = None,
    critical: str | None = None,
    like: str | None = None,
) -> tuple[Recipe, Path | None]:
    """Write a recipe file for the images in `data`, and return it and a new task file, if any.

    Without `task` a matching packaged task is used, else a task file is written beside the recipe.
    The files are kept only if the images can be split with them.
    """
    _check_destination(file)
    if like is not None and like not in list_recipes():
        read_recipe(like)  # which raises
    rows = _inspect(store, data)
    classes = find_classes(rows)
    new_task = None
    if task is None:
        fitting = [name for name in PACKAGED_TASKS if not critical and _fits(name, classes)]
        task = fitting[0] if fitting else None
    if task is None:
        new_task = file.with_name(f"{file.stem}_task.yaml")
        _check_destination(new_task)
    texts = {}
    if new_task is not None:
        title = f"Classes of {file.stem}"
        chosen = choose_critical(classes, critical)
        texts[new_task] = task_text(classes, chosen, title, str(data.resolve()))
        labels = len(classes)
    else:
        labels = len(load_task(str(task)).labels)
    base = like or ("cnn_binary" if labels == 2 else "cnn_7class")
    named = str((new_task or Path(str(task))).resolve()) if new_task or _is_file(task) else task
    write = partial(_recipe_text, file, data, str(named), base, len(rows), classes)
    texts[file] = write()

    def check_split() -> Recipe:
        recipe = read_recipe(str(file))
        split = read_split(build_data(store, recipe, "split"))
        groups = len({row.group for row in split if row.subset == "train"})
        if groups >= recipe.calibration.images:
            return recipe
        # A calibration list takes one image of a group: lesions, patients, near-duplicates
        file.write_text(write(calibration=max(8, groups)), encoding="utf-8")
        return read_recipe(str(file))

    return _write_checked(texts, check_split), new_task


def _recipe_text(
    file: Path,
    data: Path,
    task: str,
    base: str,
    images: int,
    classes: list[FoundClass],
    calibration: int | None = None,
) -> str:
    document = _read_packaged(base)
    sections = {name: dict(document[name]) for name in ("data", "model", "train")
                if isinstance(document.get(name), Mapping)}  # fmt: skip
    sections["data"] = {
        **sections.get("data", {}), "source": "auto", "path": str(data.resolve()), "task": task
    }  # fmt: skip
    sections["data"].pop("synthetic", None)
    training = int(0.7 * images)
    if training < 4 * 32:
        sections["train"]["batch_size"] = 8 if training >= 32 else 4
    if calibration is not None:
        sections["calibration"] = {"images": calibration}
    found = ", ".join(f"{c.label} {c.images}" for c in classes)
    lines = [
        f"# From `lesiontk recipe new`, after {base}. `lesiontk run` FILE runs it, `lesiontk",
        f"# recipe show` FILE prints every key. Images found: {comment(found)}.",
        f"name: {name_from_path(file)}",
        f"description: {scalar(f'Images of {data.resolve().name}.')}",
    ]
    for name, section in sections.items():
        lines += ["", f"# {_WHY[name]}", f"{name}:"]
        lines += [f"  {key}: {scalar(value)}" for key, value in section.items()]
    lines += [
        "",
        "# The gates of engines against their model; `lesiontk gate power` FILE",
        "# shows what the test images can resolve.",
        f"gate: [{DEFAULT_GATES}]",
    ]
    return "\n".join(lines) + "\n"


def _read_packaged(name: str) -> dict[str, Any]:
    """Return the document of a packaged recipe, without the defaults."""
    text = resources.files("lesiontk.recipes").joinpath(f"{name}.yaml").read_text()
    document: dict[str, Any] = load_yaml(text)
    return document


def _inspect(store: Store, data: Path) -> list[InspectedImage]:
    recipe = Recipe(name="new", data=DataSection(path=str(data.resolve())))
    return read_inspection(build_data(store, recipe, "inspection"))


def _fits(name: str, classes: list[FoundClass]) -> bool:
    """Return whether a packaged task has all these diagnoses, and they have all its labels."""
    task = load_task(name)
    names = [normalize_diagnosis(d) for found in classes for d in found.diagnoses]
    codes = [d if d in task.mapping else task.aliases.get(d, "") for d in names]
    return {task.mapping.get(code, "") for code in codes} == set(task.labels)


def _is_file(task: str | None) -> bool:
    return task is not None and Path(task).suffix.lower() in (".yaml", ".yml")


def _check_destination(file: Path) -> None:
    if file.suffix.lower() not in (".yaml", ".yml"):
        raise UsageError(f"the new file is {file}; expected a name that ends in .yaml.")
    if file.exists() or file.is_symlink():
        raise UsageError(f"{file} exists; expected a new name. Remove it, or specify another one.")
    if not file.parent.is_dir():
        raise UsageError(f"the folder {file.parent} does not exist; expected an existing one.")


def _write_checked(texts: Mapping[Path, str], check_split: Any) -> Any:
    """Write the files and return what `check_split` returns; remove them if it fails."""
    try:
        for path, text in texts.items():
            path.write_text(text, encoding="utf-8")
        return check_split()
    except (LesionTKError, OSError):
        for path in texts:
            path.unlink(missing_ok=True)
        raise
