"""Two benchmarks of a workspace side by side."""

from __future__ import annotations

from lesiontk.bench.side_by_side import EngineOutputs, Side, SideBySide, compare_benchmarks
from lesiontk.errors import UsageError
from lesiontk.records import Artefact
from lesiontk.stage import REFERENCE, EngineName, StepId
from lesiontk.stages.bench import BenchConfig, read_benchmark
from lesiontk.stages.evaluate import read_operating_point, read_predictions
from lesiontk.store import Store
from lesiontk.workflow.lineage import intact, model_of


def compare_references(store: Store, a: str, b: str) -> SideBySide:
    """Return two benchmarks side by side, with the statistics of the second.

    Each reference is a benchmark, a report, a model, or ``latest:RECIPE`` for the last used
    benchmark of a recipe. Raises `UsageError` for another artefact, if both are the same, and if
    their intervals are of different levels.
    """
    first, second = (find_benchmark(store, reference) for reference in (a, b))
    if first.content == second.content:
        raise UsageError(f"{a} and {b} are the same benchmark, {first.name}; expected two.")
    before, rule = (BenchConfig(**one.manifest.config).statistics for one in (first, second))
    if before.confidence != rule.confidence:
        raise UsageError(
            f"the intervals of {first.name} are at level {before.confidence:g}, those of "
            f"{second.name} at {rule.confidence:g}; expected one level: repeat one of them with "
            "--set evaluate.confidence=LEVEL."
        )
    return compare_benchmarks(_open_side(store, first), _open_side(store, second), rule)


def find_benchmark(store: Store, reference: str) -> Artefact:
    """Return the benchmark of a reference: itself, or the last used one of a model."""
    if reference.partition(":")[0] == "latest":
        return intact(store, store.resolve(reference, "benchmark"))
    found = store.resolve(reference)
    if found.kind == "benchmark":
        return intact(store, found)
    if found.kind == "report":
        return intact(store, store.parent(found, "benchmark"))
    if found.kind != "model":
        raise UsageError(
            f"{reference} is of kind {found.kind}; expected a benchmark, a report, a model, or "
            "latest:RECIPE."
        )
    for benchmark in store.list_artefacts("benchmark"):
        own = [name for name in read_benchmark(benchmark).by_target if not name.reference]
        engine = store.parent(benchmark, _role("engine", own[0]))
        if model_of(store, engine).content == found.content:
            return intact(store, benchmark)
    raise UsageError(f"{reference} was not measured; run `lesiontk bench` first.")


def _open_side(store: Store, artefact: Artefact) -> Side:
    benchmark, outputs = read_benchmark(artefact), {}
    for name in benchmark.by_target:
        evaluation = store.parent(artefact, _role("evaluation", name))
        y_true, probabilities, groups, image_ids, _ = read_predictions(evaluation)
        point = read_operating_point(evaluation)
        outputs[name] = EngineOutputs(y_true, probabilities, groups, image_ids, point)
    return Side(artefact.name, benchmark, outputs)


def _role(kind: str, name: EngineName) -> StepId:
    return StepId(kind, name.target, REFERENCE if name.reference else "")
