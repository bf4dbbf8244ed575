"""Benchmarks and reports of engines against their full-precision parent."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from lesiontk.backends.engine_facts import EngineFacts
from lesiontk.backends.foreign import ForeignDescription
from lesiontk.bench.benchmark import Benchmark
from lesiontk.bench.files import benchmark_files
from lesiontk.errors import UsageError
from lesiontk.recipe import override_recipe
from lesiontk.records import Artefact
from lesiontk.stages.bench import read_benchmark
from lesiontk.stages.remote_timing import RemoteDevice, import_devices, measure_on
from lesiontk.store import Store
from lesiontk.workflow.evaluate import evaluate_folder, rules_from
from lesiontk.workflow.import_devices import files_of, remembered_devices
from lesiontk.workflow.input_checks import input_checks_of
from lesiontk.workflow.lineage import (
    engines_of,
    locate_engine,
    model_of,
    recipe_of,
    robustness_of,
    sensitivities_of,
    stabilities_of,
)
from lesiontk.workflow.resume import continue_from
from lesiontk.workflow.runner import build_step

PARENT = "keras:float32"
"""The trained model itself, the reference of every other engine."""


def benchmark_model(
    store: Store,
    model: Artefact,
    targets: Sequence[str] = (),
    overrides: Iterable[str] = (),
    *,
    fresh: bool = False,
    engines: Mapping[str, Artefact] | None = None,
    measurements: Iterable[Path] = (),
    remote: RemoteDevice | None = None,
) -> Artefact:
    """Evaluate and time the model's engines beside their full-precision parents.

    Without `targets`, those of this model in the workspace; existing engines are not made again.
    `engines` replaces the engines of their targets. With `fresh`, latency is measured again even if
    an equal benchmark exists. `measurements` are files of ``run.py bench --json`` on devices;
    `remote` is a device that is measured now.
    """
    found = {**engines_of(store, model), **(engines or {})}
    chosen = list(targets or found)
    if not chosen:
        raise UsageError(
            f"{model.name} has no engine yet; make one with `lesiontk quantize --int8` or "
            "`lesiontk convert --to BACKEND:PRECISION`."
        )
    compared = {target: engine for target, engine in found.items() if target in chosen}
    files = files_of(compared)
    devices = import_devices(measurements, files)
    if remote is not None:
        rule = override_recipe(recipe_of(model), overrides).bench
        devices += measure_on(remote, files, rule, store.progress)
    plan, done = continue_from(store, model, [PARENT, *chosen], overrides, found, fresh=fresh)
    if devices:
        plan = plan.with_devices(devices)
    return build_step(plan, "benchmark", store, done)


def benchmark_references(
    store: Store,
    references: Sequence[str],
    model: str = "latest",
    overrides: Iterable[str] = (),
    *,
    fresh: bool = False,
    measurements: Iterable[Path] = (),
    remote: RemoteDevice | None = None,
) -> tuple[Benchmark, Artefact | None]:
    """Benchmark engines by reference, and return the benchmark and its artefact, if any.

    Engines of the workspace are compared with their parent on its test split. For files see
    `benchmark_engine_files`.
    """
    engines = [store.resolve(reference, "engine") for reference in references]
    parent = model_of(store, engines[0]) if engines else store.resolve(model, "model")
    unrelated = [e.name for e in engines if model_of(store, e).content != parent.content]
    if unrelated:
        raise UsageError(
            f"{', '.join(unrelated)} and {engines[0].name} have different models; compare engines "
            "of one model."
        )
    references_of = {engine.read_facts(EngineFacts).target: engine for engine in engines}
    if len(references_of) < len({engine.name for engine in engines}):
        raise UsageError(
            "two of the engines have the same target; run a benchmark for each, with its parent."
        )
    artefact = benchmark_model(
        store,
        parent,
        list(references_of),
        overrides,
        fresh=fresh,
        engines=references_of,
        measurements=measurements,
        remote=remote,
    )
    return read_benchmark(artefact), artefact


def benchmark_engine_files(
    store: Store,
    references: Sequence[str],
    overrides: Iterable[str],
    foreign: ForeignDescription,
    images: Path | None = None,
    measurements: Iterable[Path] = (),
    remote: RemoteDevice | None = None,
) -> Benchmark:
    """Measure engine files, also those of other tools, and evaluate them on `images` if given."""
    files = {reference: locate_engine(store, reference) for reference in references}
    recipe = rules_from(overrides)
    devices = import_devices(measurements, files)
    if remote is not None:
        devices += measure_on(remote, files, recipe.bench, store.progress)
    scores = None
    if images is not None:
        scores = {
            name: evaluate_folder(
                path,
                images,
                None,
                recipe.evaluate,
                store.progress,
                splits=store.list_artefacts("split"),
                foreign=foreign,
            )
            for name, path in files.items()
        }
    return benchmark_files(files, recipe, store.progress, foreign, scores, devices)


def report_model(store: Store, model: Artefact, overrides: Iterable[str] = ()) -> Artefact:
    """Build the report on the model's engines, including earlier measurements."""
    found = engines_of(store, model)
    plan, done = continue_from(store, model, [PARENT, *found], overrides, found)
    plan = plan.with_devices(remembered_devices(store, found))
    known = {
        **sensitivities_of(store, model),
        **stabilities_of(store, found),
        **input_checks_of(store, found),
        **robustness_of(store, found),
    }
    reported = [name for name in known if name not in plan]
    shown: dict[str, Artefact] = {name: known[name] for name in reported}
    return build_step(plan.with_reported(reported), "report", store, {**shown, **done})
