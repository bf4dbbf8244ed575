"""Benchmarks of a workspace are found by every reference to them, and put side by side."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from lesiontk.bench.side_by_side import Pairing
from lesiontk.cli.main import cli
from lesiontk.errors import UsageError
from lesiontk.records import Artefact
from lesiontk.stages.bench import read_benchmark
from lesiontk.store import Store
from lesiontk.workflow.benchmark import benchmark_model
from lesiontk.workflow.compare_benchmarks import compare_references, find_benchmark
from lesiontk.workflow.convert import convert_model

QUICK = ["bench.rounds=20", "evaluate.resamples=100", "gate=[]"]


@pytest.fixture(scope="module")
def model(tiny_store: Store) -> Artefact:
    return tiny_store.resolve("latest", "model")


@pytest.fixture(scope="module")
def engine(tiny_store: Store, model: Artefact) -> Artefact:
    return convert_model(tiny_store, model, ["tflite:int8"])["tflite:int8"]


@pytest.fixture(scope="module")
def first(tiny_store: Store, model: Artefact, engine: Artefact) -> Artefact:
    return benchmark_model(tiny_store, model, ["tflite:int8"], QUICK)


@pytest.fixture(scope="module")
def second(tiny_store: Store, model: Artefact, first: Artefact) -> Artefact:
    return benchmark_model(tiny_store, model, ["tflite:int8"], [*QUICK, "evaluate.resamples=120"])


def test_two_benchmarks_of_a_split_are_paired(
    tiny_store: Store, first: Artefact, second: Artefact
) -> None:
    found = compare_references(tiny_store, first.name, second.name)
    assert (found.a, found.b) == (first.name, second.name)
    assert found.pairing is Pairing.PAIRED
    assert found.same_machine
    assert found.confidence == 0.95
    assert [pair.engine for pair in found.engines] == list(read_benchmark(first).by_target)
    for pair in found.engines:
        assert pair.changed == 0
        assert {change.value for change in pair.differences.values()} <= {0, None}


def test_a_benchmark_is_found_by_its_model_and_by_its_recipe(
    tiny_store: Store, model: Artefact, second: Artefact
) -> None:
    for reference in (model.name, "latest:tiny", "latest", second.name, str(second.path)):
        assert find_benchmark(tiny_store, reference).name == second.name


def test_what_is_no_benchmark_is_refused(
    tiny_store: Store, engine: Artefact, first: Artefact
) -> None:
    with pytest.raises(UsageError, match="is of kind engine; expected a benchmark, a report"):
        find_benchmark(tiny_store, engine.name)
    with pytest.raises(UsageError, match="are the same benchmark"):
        compare_references(tiny_store, first.name, first.key[:8])
    with pytest.raises(UsageError, match=r"no benchmark .* matches 'latest:other'"):
        find_benchmark(tiny_store, "latest:other")


def run(store: Store, *words: str) -> Result:
    return CliRunner().invoke(cli, [*words, "--workspace", str(store.workspace)])


def test_intervals_of_two_levels_are_refused(
    tiny_store: Store, model: Artefact, first: Artefact
) -> None:
    wider = [*QUICK, "evaluate.confidence=0.9"]
    other = benchmark_model(tiny_store, model, ["tflite:int8"], wider)
    with pytest.raises(UsageError, match=r"at level 0\.95, those of .* at 0\.9; expected one"):
        compare_references(tiny_store, first.name, other.name)


def test_the_command_prints_both_and_writes_a_page(
    tiny_store: Store, first: Artefact, second: Artefact, tmp_path: Path
) -> None:
    page = tmp_path / "both.html"
    words = ["report", "--compare", first.name, second.name]
    printed = run(tiny_store, *words, "--out", str(page))
    assert printed.exit_code == 0, printed.output
    assert "differences are paired by lesion" in printed.output
    assert "balanced accuracy" in printed.output
    assert first.name in page.read_text(encoding="utf-8")
    document = json.loads(run(tiny_store, *words, "--json").stdout)
    assert document["pairing"] == "paired"
    refused = run(tiny_store, *words, "--out", str(tmp_path / "both.pdf"))
    assert isinstance(refused.exception, UsageError)
    alone = run(tiny_store, "report", "--out", str(page))
    assert alone.exit_code == 2
    assert "--out requires --compare" in alone.output
