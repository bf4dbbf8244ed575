"""Bundles of engines for devices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from lesiontk.backends import is_engine_file
from lesiontk.backends.engine_facts import EngineFacts
from lesiontk.deploy import find_bundle_target
from lesiontk.deploy.archive import check_archive, write_archive
from lesiontk.deploy.bundle import BundleFacts, check_destination
from lesiontk.deploy.signing import load_private_key, sign_sums
from lesiontk.deploy.target import BundleTarget
from lesiontk.errors import LesionTKError, UsageError
from lesiontk.records import Artefact
from lesiontk.stages import STAGES
from lesiontk.stages.bundle import (
    BundleConfig,
    BundleStage,
    copy_bundle,
    open_target,
    require_passed,
    write_bundle_of_file,
)
from lesiontk.store import Store
from lesiontk.workflow.benchmark import benchmark_model
from lesiontk.workflow.choose_recipe import with_gates
from lesiontk.workflow.convert import convert_model
from lesiontk.workflow.evaluate import evaluate_artefact
from lesiontk.workflow.input_checks import checks_for_bundle
from lesiontk.workflow.lineage import (
    engines_of,
    find_assessment,
    find_evaluation,
    intact,
    locate_engine,
    model_of,
    recipe_of,
    resolve_network,
)


def bundle_engines(
    store: Store,
    engines: Mapping[str, Artefact],
    devices: Sequence[str],
    threshold: float | None = None,
    *,
    research_override: bool = False,
    runtime: Path | None = None,
) -> dict[str, Artefact]:
    """Return device -> bundle of its preferred engine, from target -> engine.

    A bundle contains the threshold and results of the engine's evaluation in the workspace, or
    `threshold`. Raises `UsageError` for an unknown device, or if none of the engines runs there,
    and `GateFailedError` for an engine that did not pass its gates; with `research_override` it is
    bundled, and that is recorded in the bundle.
    """
    chosen = {name: engines[find_bundle_target(name).choose(engines)] for name in devices}
    bundles = {}
    for name, engine in chosen.items():
        alternative, no_alternative = list_alternative(store, engine, name)
        parents = {"engine": engine, **alternative}
        if recipe_of(engine).gate:
            parents["benchmark"] = judged_benchmark(store, engine)
        checks = checks_for_bundle(store, engine)
        if checks is not None:
            parents["input_checks"] = checks
        evaluation = find_evaluation(store, engine)
        if evaluation is not None:
            parents["evaluation"] = evaluation
        bundles[name] = store.build(
            BundleStage(runtime),
            BundleConfig(
                target=name,
                threshold=threshold,
                research_override=research_override,
                no_alternative=no_alternative,
            ),
            parents,
            recipe=engine.manifest.recipe,
        )
    return bundles


def list_alternative(
    store: Store, engine: Artefact, device: str
) -> tuple[dict[str, Artefact], str]:
    """Return the other engine of the same model of which the device keeps one, made if necessary.

    It is returned by role, with its parent and what it was judged by. Where there is none, the
    reason is returned; it is empty for a device without a choice.
    """
    target = engine.read_facts(EngineFacts).target
    other = find_bundle_target(device).alternatives.get(target)
    if other is None:
        return {}, ""
    refused: dict[str, LesionTKError] = {}
    engines = convert_model(store, model_of(store, engine), [other], refused=refused)
    if other not in engines:
        return {}, f"{other} is not possible, {refused[other]}".rstrip(".")
    made = engines[other]
    parents = {
        "alternative": made,
        "alternative_parent": store.parent(made, "source"),
        "alternative_evaluation": evaluate_artefact(store, made),
    }
    if recipe_of(made).gate:
        parents["alternative_benchmark"] = judged_benchmark(store, made)
    return parents, ""


def judged_benchmark(store: Store, engine: Artefact) -> Artefact:
    """Return a benchmark of this engine with its recipe's gates, made if necessary."""
    target, gates = engine.read_facts(EngineFacts).target, list(recipe_of(engine).gate)
    for benchmark in store.list_artefacts("benchmark"):
        manifest = benchmark.manifest
        parent = manifest.parents.get(f"engine:{target}")
        if (
            parent is not None
            and parent.content == engine.content
            and manifest.stage.version == STAGES.get("bench").info.version
            and manifest.config["gate"] == gates
        ):
            return benchmark
    return benchmark_model(
        store, model_of(store, engine), [target], with_gates((), gates), engines={target: engine}
    )


def bundle_reference(
    store: Store,
    reference: str,
    device: str,
    out: Path | None = None,
    threshold: float | None = None,
    *,
    research_override: bool = False,
    sign: Path | None = None,
    archive: Path | None = None,
    runtime: Path | None = None,
) -> tuple[Path, BundleFacts]:
    """Write a device's bundle of an engine, or of a model's preferred one, and return its
    folder and facts.

    An engine of the workspace is evaluated first if necessary, because a bundle contains its
    engine's results. The bundle is copied to `out`, which is required for an engine file outside
    the workspace. The decision is at `threshold`, or at the frozen one. The copy is signed with the
    private key in `sign`; `archive` is a new file of the bundle. Both are checked before any work.
    `runtime` is a folder with the runtime that bundles for the device contain.
    """
    target = open_target(device, runtime)
    if out is None and (sign is not None or archive is not None):
        raise UsageError(
            "--sign and --archive are for a copy of the bundle; expected --out DIR, too."
        )
    if sign is not None:
        load_private_key(sign)
    if archive is not None:
        check_archive(archive)
    folder, facts = _write(store, reference, target, out, threshold, research_override, runtime)
    if sign is not None:
        sign_sums(folder, sign)
    if archive is not None:
        write_archive(folder, archive)
    return folder, facts


def _write(
    store: Store,
    reference: str,
    target: BundleTarget,
    out: Path | None,
    threshold: float | None,
    research_override: bool,
    runtime: Path | None,
) -> tuple[Path, BundleFacts]:
    if out is not None:
        check_destination(out)
    if is_engine_file(reference):
        if out is None:
            raise UsageError(f"{reference} is a file outside the workspace; expected --out DIR.")
        path = locate_engine(store, reference)
        if not research_override:
            require_passed((), reference)
        known = find_assessment(store, reference)
        return out, write_bundle_of_file(out, path, target, assessment=known, threshold=threshold)
    artefact = resolve_network(store, reference)
    engines = (
        {artefact.read_facts(EngineFacts).target: artefact}
        if artefact.kind == "engine"
        else engines_of(store, artefact)
    )
    engine = intact(store, engines[target.choose(engines)])
    evaluate_artefact(store, engine)
    chosen = {engine.read_facts(EngineFacts).target: engine}
    bundles = bundle_engines(
        store,
        chosen,
        [target.name],
        threshold,
        research_override=research_override,
        runtime=runtime,
    )
    made = bundles[target.name]
    if out is not None:
        copy_bundle(made, out)
    return out or made.path, made.read_facts(BundleFacts)
