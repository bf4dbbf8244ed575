"""The lineage of artefacts in a workspace, and the resolution of references."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from lesiontk.backends import is_engine_file, list_targets
from lesiontk.backends.engine_facts import EngineFacts
from lesiontk.backends.reference_outputs import engine_file
from lesiontk.compress.model_history import find_trained
from lesiontk.errors import DataError, LesionTKError, UsageError
from lesiontk.evaluate.assessment import Assessment
from lesiontk.files.regular_file import check_regular
from lesiontk.recipe import Compression, Recipe, parse_recipe
from lesiontk.records import ARTEFACT_NAME, Artefact, ModelFacts
from lesiontk.stage import StepId
from lesiontk.stages.evaluate import read_assessment
from lesiontk.store import Store
from lesiontk.store.machine_paths import PREFIX, MachinePaths
from lesiontk.store.manifest import MANIFEST
from lesiontk.technique import ORIGINS, TECHNIQUES


def recipe_of(artefact: Artefact) -> Recipe:
    """Return the recipe of an artefact's last use, with the paths of this machine.

    The images' path is None for an artefact of another workspace.
    """
    document = MachinePaths(artefact.path.parent).reveal(artefact.manifest.recipe)
    if not document:
        raise DataError(f"{artefact.name} contains no recipe.")
    recipe = parse_recipe(document)
    if str(recipe.data.path or "").startswith(PREFIX):
        recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={"path": None})})
    return recipe


def describe_derivation(model: Artefact) -> str:
    """Return a model's architecture and its compressions since training, as text."""
    facts = model.read_facts(ModelFacts)
    done = [step.stage for step in facts.line if step.stage not in ORIGINS]
    return " + ".join([facts.architecture, *done])


def descendant_engines(store: Store, model: Artefact) -> list[Artefact]:
    """Return every engine of the workspace that was derived from `model`, damaged or not."""
    return [engine for engine in store.list_artefacts("engine") if _is_of(store, engine, model)]


def lineage_of(store: Store, model: Artefact) -> list[Artefact]:
    """Return the models of a line, from the first trained one to this one."""
    line = [model]
    while "model" in line[0].manifest.parents:
        line.insert(0, store.parent(line[0], "model"))
    return line


def trained_of(store: Store, model: Artefact) -> Artefact:
    """Return the trained model before compression, the model itself without compression."""
    line = lineage_of(store, model)
    return line[find_trained(made.stage for made in line)]


def training_seconds(store: Store, model: Artefact) -> float:
    """Return the duration of a model's training in seconds, including those of its ancestors."""
    return sum(made.manifest.seconds for made in lineage_of(store, model))


def model_of(store: Store, engine: Artefact) -> Artefact:
    """Return the model of an engine, or of a sensitivity measured on one."""
    return store.parent(derivation_of(store, engine)[-1], "source")


def derivation_of(store: Store, engine: Artefact) -> list[Artefact]:
    """Return an engine and those that it was derived from, the model's own last."""
    line = [engine]
    while (source := store.parent(line[-1], "source")).kind == "engine":
        line.append(source)
    return line


def engines_of(store: Store, model: Artefact) -> dict[str, Artefact]:
    """Return target -> the last used engine of `model`, in order of registration."""
    found = _last_used(store, "engine", "target", lambda engine: _is_of(store, engine, model))
    return {target: found[target] for target in list_targets() if target in found}


def sensitivities_of(store: Store, model: Artefact) -> dict[StepId, Artefact]:
    """Return ``sensitivity:BACKEND`` -> the last used one of the model's layers there."""
    found = _last_used(store, "sensitivity", "backend", lambda made: _is_of(store, made, model))
    return {StepId("sensitivity", backend): made for backend, made in found.items()}


def stabilities_of(store: Store, engines: Mapping[str, Artefact]) -> dict[StepId, Artefact]:
    """Return ``stability:TARGET`` -> the last used one of each of `engines`."""

    def is_own(made: Artefact) -> bool:
        engine = engines.get(str(made.facts["target"]))
        return engine is not None and made.manifest.parents["engine"].content == (engine.content)

    found = _last_used(store, "stability", "target", is_own)
    return {StepId("stability", target): made for target, made in found.items()}


def robustness_of(store: Store, engines: Mapping[str, Artefact]) -> dict[StepId, Artefact]:
    """Return ``robustness:TARGET`` -> the last used one of each of `engines` that has any."""

    def is_own(made: Artefact) -> bool:
        target = str(made.facts["target"])
        own = made.manifest.parents[StepId("engine", target)]
        return target in engines and own.content == engines[target].content

    found = _last_used(store, "robustness", "target", is_own)
    return {StepId("robustness", target): made for target, made in found.items()}


def _last_used(
    store: Store, kind: str, fact: str, belongs: Callable[[Artefact], bool]
) -> dict[str, Artefact]:
    """Return each value of a fact -> the last used intact artefact with it that `belongs`."""
    found: dict[str, Artefact] = {}
    for artefact in store.list_artefacts(kind):
        value = str(artefact.facts[fact])
        if value not in found and belongs(artefact) and store.damage(artefact.path) is None:
            found[value] = artefact
    return found


def _is_of(store: Store, artefact: Artefact, model: Artefact) -> bool:
    """Return whether an engine, or a measurement on one, belongs to this model."""
    try:
        return model_of(store, artefact).content == model.content
    except DataError:
        return False  # its parents were deleted


def intact(store: Store, artefact: Artefact) -> Artefact:
    """Return the artefact. Raises `DataError` if its files do not match its manifest."""
    why = store.damage(artefact.path)
    if why is not None:
        raise DataError(f"{artefact.name} cannot be used: {why}. Make it again.")
    return artefact


def locate_engine(store: Store, reference: str) -> Path:
    """Return the engine file of a path, or of an artefact of the workspace.

    Raises `DataError` for a path that is not a regular file, and for a file of any workspace that
    does not match its manifest.
    """
    if is_engine_file(reference):
        path = Path(reference)
        check_regular(path, "engine file")
        find_artefact(path)
        return path
    return engine_file(intact(store, store.resolve(reference, "engine")))


def locate_onnx(store: Store, reference: str) -> Path:
    """Return the ONNX file of a path, or of an engine of the workspace.

    ``latest`` and ``latest:RECIPE`` are the last used ONNX engine. Raises `UsageError` for an
    engine of another kind.
    """
    if Path(reference).suffix == ".onnx" or os.path.lexists(reference):
        check_regular(reference, "ONNX file")
        return Path(reference)
    if reference.partition(":")[0] == "latest":
        engine = latest_engine(store, reference, lambda facts: facts.file.endswith(".onnx"))
        if engine is None:
            raise UsageError(
                f"no ONNX engine in {store.workspace} fits {reference!r}; `lesiontk convert --to "
                "onnx:int8` makes one."
            )
        return engine_file(intact(store, engine))
    path = locate_engine(store, reference)
    if path.suffix != ".onnx":
        raise UsageError(f"{reference} is the engine {path.name}; expected an ONNX engine.")
    return path


def latest_engine(
    store: Store, reference: str, fits: Callable[[EngineFacts], bool]
) -> Artefact | None:
    """Return the last used engine whose facts fit, for ``latest`` or ``latest:RECIPE``, or None."""
    recipe = reference.partition(":")[2]
    for engine in store.list_artefacts("engine"):
        if recipe in ("", engine.recipe_name) and fits(engine.read_facts(EngineFacts)):
            return engine
    return None


def resolve_latest(
    store: Store, reference: str, fits: Callable[[EngineFacts], bool], missing: str
) -> str:
    """Return the reference; instead of ``latest`` ones the name of the last used engine that fits.

    Raises `UsageError` with the words `missing` if there is none.
    """
    if reference.partition(":")[0] != "latest":
        return reference
    engine = latest_engine(store, reference, fits)
    if engine is None:
        raise UsageError(f"{missing}; `lesiontk quantize` makes one.")
    return engine.name


def find_artefact(path: Path) -> Artefact | None:
    """Return the intact artefact of a file; None for a file outside of workspaces.

    Raises `DataError` for a file that was changed or added after its artefact was made.
    """
    folder = path.resolve().parent
    if not ARTEFACT_NAME.fullmatch(folder.name) or not (folder / MANIFEST).is_file():
        return None
    store = Store(folder.parent)
    artefact = intact(store, store.resolve(folder.name))
    artefact.file(path.resolve().name)
    return artefact


def find_evaluation(store: Store, engine: Artefact) -> Artefact | None:
    """Return the last used intact evaluation of this engine, or None."""
    for evaluation in store.list_artefacts("evaluation"):
        judged = evaluation.manifest.parents["engine"].content
        if judged == engine.content and store.damage(evaluation.path) is None:
            return evaluation
    return None


def find_assessment(store: Store, reference: str) -> Assessment | None:
    """Return the assessment of an engine in the workspace, by reference or path.

    None for an engine without evaluation, and for a file outside of workspaces, which contains its
    own.
    """
    found = find_engine(store, reference)
    evaluation = found and find_evaluation(*found)
    return read_assessment(evaluation) if evaluation else None


def find_engine(store: Store, reference: str) -> tuple[Store, Artefact] | None:
    """Return the engine of a reference or path, with its workspace; None for a file outside."""
    if not is_engine_file(reference):
        return store, store.resolve(reference, "engine")
    engine = find_artefact(Path(reference))
    return (Store(engine.path.parent), engine) if engine else None


def locate_teacher(store: Store, reference: str) -> Path:
    """Return the absolute path of a teacher: a file, or a model, engine or encoder of the
    workspace.

    Raises `DataError` if it is not there, or `UsageError` if it is neither.
    """
    if is_engine_file(reference):
        return locate_engine(store, reference).resolve()
    if reference.startswith("encoder-"):
        return engine_file(intact(store, store.resolve(reference, "encoder"))).resolve()
    return engine_file(intact(store, resolve_network(store, reference))).resolve()


def locate_teachers(store: Store, recipe: Recipe) -> Recipe:
    """Return the recipe with the file of each teacher.

    Raises as `locate_teacher`, and `UsageError` if the teacher is the last model of this recipe,
    which changes with each run.
    """
    compress = [
        replace(entry, options={**entry.options, **_locate_networks(store, recipe, entry)})
        for entry in recipe.compress
    ]
    return recipe.model_copy(update={"compress": tuple(compress)})


def list_networks(value: object) -> list[str]:
    """Return the references of one network, or of a list of them."""
    return [str(n) for n in value] if isinstance(value, list | tuple) else [str(value)]


def _locate_networks(store: Store, recipe: Recipe, entry: Compression) -> dict[str, list[str]]:
    """Return the files of each network option of a technique."""
    technique, options = entry.technique, entry.options
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
