"""What in a workspace belongs to what, and where a name leads."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lesiontk.backends import is_engine_file, list_targets
from lesiontk.backends.reference_outputs import engine_file
from lesiontk.compress.model_history import find_trained
from lesiontk.errors import DataError, LesionTKError, UsageError
from lesiontk.evaluate.assessment import Assessment
from lesiontk.files.regular_file import check_regular
from lesiontk.recipe import Recipe, parse_recipe
from lesiontk.records import Artefact, ModelFacts
from lesiontk.stage import StepId
from lesiontk.stages.evaluate import read_assessment
from lesiontk.store import Store
from lesiontk.store.machine_paths import PREFIX, MachinePaths
from lesiontk.store.manifest import MANIFEST
from lesiontk.technique import ORIGINS, TECHNIQUES

ARTEFACT = re.compile(r"[a-z]+-[0-9a-f]{12}")
"""The name of an artefact's folder."""


def recipe_of(artefact: Artefact) -> Recipe:
    """Return the recipe that an artefact was last used with, with the paths of this machine.

    The images' path is None for an artefact that comes from another workspace.
    """
    document = MachinePaths(artefact.path.parent).reveal(artefact.manifest["recipe"])
    if not document:
        raise DataError(f"{artefact.name} carries no recipe.")
    recipe = parse_recipe(document)
    if str(recipe.data.path or "").startswith(PREFIX):
        recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={"path": None})})
    return recipe


def describe_derivation(model: Artefact) -> str:
    """Return what a model is: its architecture, and what was done to it since it was trained."""
    facts = model.read_facts(ModelFacts)
    done = [step.stage for step in facts.line if step.stage not in ORIGINS]
    return " + ".join([facts.architecture, *done])


def descendant_engines(store: Store, model: Artefact) -> list[Artefact]:
    """Return every engine of the workspace that was derived from `model`, damaged or not."""
    return [engine for engine in store.list_artefacts("engine") if _is_of(store, engine, model)]


def lineage_of(store: Store, model: Artefact) -> list[Artefact]:
    """Return the models from the one that was trained first to this one, which is the last."""
    line = [model]
    while "model" in line[0].manifest["parents"]:
        line.insert(0, store.parent(line[0], "model"))
    return line


def trained_of(store: Store, model: Artefact) -> Artefact:
    """Return the model that compression began with, which is a model's own if there was none."""
    line = lineage_of(store, model)
    return line[find_trained(made.stage for made in line)]


def training_seconds(store: Store, model: Artefact) -> float:
    """Return how long a model took to make: its own training, and that of what it was made from."""
    return sum(float(made.manifest["seconds"]) for made in lineage_of(store, model))


def model_of(store: Store, engine: Artefact) -> Artefact:
    """Return the model that an engine, or a sensitivity measured on one, descends from."""
    return store.parent(derivation_of(store, engine)[-1], "source")


def derivation_of(store: Store, engine: Artefact) -> list[Artefact]:
    """Return an engine and those that it was derived from, the model's own last."""
    line = [engine]
    while (source := store.parent(line[-1], "source")).kind == "engine":
        line.append(source)
    return line


def engines_of(store: Store, model: Artefact) -> dict[str, Artefact]:
    """Return target -> the last used engine derived from `model`, in order of registration."""
    found = _last_used(store, "engine", "target", lambda engine: _is_of(store, engine, model))
    return {target: found[target] for target in list_targets() if target in found}


def sensitivities_of(store: Store, model: Artefact) -> dict[StepId, Artefact]:
    """Return ``sensitivity:BACKEND`` -> the last used one of the model's layers there."""
    found = _last_used(store, "sensitivity", "backend", lambda made: _is_of(store, made, model))
    return {StepId("sensitivity", backend): made for backend, made in found.items()}


def stabilities_of(store: Store, engines: Mapping[str, Artefact]) -> dict[StepId, Artefact]:
    """Return ``stability:TARGET`` -> the last used one of that very engine of `engines`."""

    def is_own(made: Artefact) -> bool:
        engine = engines.get(str(made.facts["target"]))
        return engine is not None and made.manifest["parents"]["engine"]["content"] == (
            engine.content
        )

    found = _last_used(store, "stability", "target", is_own)
    return {StepId("stability", target): made for target, made in found.items()}


def _last_used(
    store: Store, kind: str, fact: str, belongs: Callable[[Artefact], bool]
) -> dict[str, Artefact]:
    """Return each value of a fact -> the last used intact artefact of it that `belongs`."""
    found: dict[str, Artefact] = {}
    for artefact in store.list_artefacts(kind):
        value = str(artefact.facts[fact])
        if value not in found and belongs(artefact) and store.damage(artefact.path) is None:
            found[value] = artefact
    return found


def _is_of(store: Store, artefact: Artefact, model: Artefact) -> bool:
    """Return whether an engine, or what was measured on one, is of this model."""
    try:
        return model_of(store, artefact).content == model.content
    except DataError:
        return False  # its parents were deleted: it belongs to no model here


def intact(store: Store, artefact: Artefact) -> Artefact:
    """Return the artefact; `DataError` if its files are not what its manifest says."""
    why = store.damage(artefact.path)
    if why is not None:
        raise DataError(f"{artefact.name} cannot be used: {why}. Make it again.")
    return artefact


def locate_engine(store: Store, reference: str) -> Path:
    """Return the engine file of a path, or of an artefact of the workspace.

    Raises `DataError` for a path that is no regular file, and for a file of a workspace, its own or
    another, that is not what its manifest says.
    """
    if is_engine_file(reference):
        path = Path(reference)
        check_regular(path, "engine file")
        find_artefact(path)
        return path
    return engine_file(intact(store, store.resolve(reference, "engine")))


def locate_onnx(store: Store, reference: str) -> Path:
    """Return the ONNX file of a path, or of an engine of the workspace.

    ``latest`` and ``latest:RECIPE`` are the last used engine that is one. Raises `UsageError` for
    an engine of another kind.
    """
    if Path(reference).suffix == ".onnx" or os.path.lexists(reference):
        check_regular(reference, "ONNX file")
        return Path(reference)
    if reference.partition(":")[0] == "latest":
        recipe = reference.partition(":")[2]
        for engine in store.list_artefacts("engine"):
            if str(engine.facts["file"]).endswith(".onnx") and recipe in ("", engine.recipe_name):
                return engine_file(intact(store, engine))
        raise UsageError(
            f"no ONNX engine in {store.workspace} fits {reference!r}; `lesiontk convert --to "
            "onnx:int8` makes one."
        )
    path = locate_engine(store, reference)
    if path.suffix != ".onnx":
        raise UsageError(f"{reference} is the engine {path.name}; expected an ONNX engine.")
    return path


def find_artefact(path: Path) -> Artefact | None:
    """Return the intact artefact that a file belongs to; None for a file outside of workspaces.

    Raises `DataError` for a file that was changed, or laid there, after its artefact was made.
    """
    folder = path.resolve().parent
    if not ARTEFACT.fullmatch(folder.name) or not (folder / MANIFEST).is_file():
        return None
    store = Store(folder.parent)
    artefact = intact(store, store.resolve(folder.name))
    artefact.file(path.resolve().name)
    return artefact


def find_evaluation(store: Store, engine: Artefact) -> Artefact | None:
    """Return the last used intact evaluation of this very engine; None where there is none."""
    for evaluation in store.list_artefacts("evaluation"):
        judged = evaluation.manifest["parents"]["engine"]["content"]
        if judged == engine.content and store.damage(evaluation.path) is None:
            return evaluation
    return None


def find_assessment(store: Store, reference: str) -> Assessment | None:
    """Return what the workspace knows of an engine, by reference or path, that was evaluated.

    None for an engine that was not, and for a file outside of workspaces: it carries its own.
    """
    if is_engine_file(reference):
        engine = find_artefact(Path(reference))
        if engine is None:
            return None
        store = Store(engine.path.parent)
    else:
        engine = store.resolve(reference, "engine")
    evaluation = find_evaluation(store, engine)
    return None if evaluation is None else read_assessment(evaluation)


def locate_teacher(store: Store, reference: str) -> Path:
    """Return the whole path of a teacher: a file's, or of a model, engine or encoder of the
    workspace.

    Raises `DataError` if it is not there, or `UsageError` if it is neither.
    """
    if is_engine_file(reference):
        return locate_engine(store, reference).resolve()
    if reference.startswith("encoder-"):
        return engine_file(intact(store, store.resolve(reference, "encoder"))).resolve()
    return engine_file(intact(store, resolve_network(store, reference))).resolve()


def locate_teachers(store: Store, recipe: Recipe) -> Recipe:
    """Return the recipe with the file of each teacher, which it may name as `distill` does.

    Raises as `locate_teacher`, and `UsageError` where the teacher is the last model of this recipe:
    after each run that would be another.
    """
    compress = [
        {
            technique: {**options, **_locate_networks(store, recipe, technique, options)}
            for technique, options in entry.items()
        }
        for entry in recipe.compress
    ]
    return recipe.model_copy(update={"compress": tuple(compress)})


def list_networks(value: object) -> list[str]:
    """Return the references of one network, or of a list of them."""
    return [str(n) for n in value] if isinstance(value, list | tuple) else [str(value)]


def _locate_networks(
    store: Store, recipe: Recipe, technique: str, options: Mapping[str, Any]
) -> dict[str, list[str]]:
    """Return the file of each network that a technique's options name."""
    files: dict[str, list[str]] = {}
    networks = TECHNIQUES.get(technique).info.networks if technique in TECHNIQUES else ()
    for name in networks:
        for network in list_networks(options[name]) if options.get(name) else ():
            if network in ("latest", f"latest:{recipe.name}"):
                raise UsageError(
                    f"compress.{technique}.{name} is {network}, which changes with every run of "
                    f"{recipe.name}; expected a file, another recipe's network (latest:RECIPE), or "
                    "the name of a model or engine."
                )
            try:
                files.setdefault(name, []).append(str(locate_teacher(store, network)))
            except LesionTKError as error:
                raise type(error)(
                    f"the {name} {network} of compress.{technique}: {error}"
                ) from error
    return files


def resolve_network(store: Store, reference: str) -> Artefact:
    """Return a model or engine of the workspace; ``latest`` and ``latest:RECIPE`` are models."""
    latest = reference.partition(":")[0] == "latest"
    artefact = store.resolve(reference, "model" if latest else None)
    if artefact.kind not in ("model", "engine"):
        raise UsageError(f"{reference} is of kind {artefact.kind}; expected an engine or a model.")
    return artefact
