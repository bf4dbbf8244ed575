"""Pruning as a stage: a smaller model, recovered, converted as any other."""

from __future__ import annotations

import csv
import json
from typing import Any

import pytest
from click.testing import CliRunner

from lesiontk.bench.bench_stage import read_benchmark
from lesiontk.bench.rows import name_target
from lesiontk.cli.main import cli
from lesiontk.compress.prune_stage import WIDTHS
from lesiontk.errors import UsageError
from lesiontk.evaluate.operating_point import PARENT_SENSITIVITY
from lesiontk.plan import plan_recipe
from lesiontk.recipe import Recipe, parse_recipe
from lesiontk.records import Artefact
from lesiontk.store import Store
from lesiontk.workflow import benchmark_model, convert_model, report_model, train_recipe

from .test_distil_stage import TINY

RECOVER = {**TINY["train"], "learning_rate": 0.001}  # type: ignore[dict-item]


def recipe(**prune: Any) -> Recipe:
    document = json.loads(json.dumps(TINY))
    if prune:
        document["compress"] = [{"prune": {"recover": RECOVER, **prune}}]
    return parse_recipe(document)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("workspace"))


@pytest.fixture(scope="module")
def pruned(store: Store) -> Artefact:
    return train_recipe(store, recipe(keep_macs=0.4, images=32, iterations=2))


def test_it_keeps_the_share_that_was_asked_for(store: Store, pruned: Artefact) -> None:
    facts = pruned.facts["pruned"]
    before, after = facts["macs"]
    assert 0.3 * before < after <= 0.4 * before
    assert [round_["kept"] <= limit for round_, limit in zip(
        facts["rounds"], (0.4**0.5, 0.4), strict=True
    )] == [True, True]  # fmt: skip
    assert facts["parameters"][1] < facts["parameters"][0]
    assert pruned.facts["parameters"] < store.parent(pruned, "model").facts["parameters"]


def test_the_widths_are_told(pruned: Artefact) -> None:
    with pruned.file(WIDTHS).open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    kept = {row["layer"]: int(row["kept"]) for row in rows}
    assert kept["logits"] == 7
    convolutions = [row for row in rows if row["kind"] == "Conv2D"]
    assert all(int(row["kept"]) % 8 == 0 for row in convolutions)
    assert any(int(row["kept"]) < int(row["channels"]) for row in convolutions)
    assert sum(int(row["macs_kept"]) for row in rows) == pruned.facts["pruned"]["macs"][1]


def test_its_engines_are_smaller(store: Store, pruned: Artefact) -> None:
    parent = store.parent(pruned, "model")
    small, whole = (
        convert_model(store, model, ["tflite:float32"])["tflite:float32"]
        for model in (pruned, parent)
    )
    assert small.facts["size_bytes"] < 0.7 * whole.facts["size_bytes"]
    assert small.facts["verification"]["passed"]


def test_its_engines_are_judged_against_those_of_the_network_that_was_trained(
    store: Store, pruned: Artefact
) -> None:
    targets = ["tflite:int8"]
    loose = [
        "calibration.images=32",
        "verify.min_agreement_int8=0",
        "verify.max_mean_drift_int8=1",
        "bench.rounds=20",
        "gate={balanced_accuracy: {max_drop: 0.5}}",
    ]
    document = read_benchmark(benchmark_model(store, pruned, targets, loose))
    against = {
        name_target(row): row["versus_parent"] and row["versus_parent"]["parent"]
        for row in document["rows"]
    }
    assert against == {
        "keras:float32@trained": None,
        "tflite:float32@trained": "keras:float32@trained",
        "keras:float32": "keras:float32@trained",
        "tflite:float32": "tflite:float32@trained",
        "tflite:int8": "tflite:float32@trained",
    }
    rows = {name_target(row): row for row in document["rows"]}
    whole = convert_model(store, store.parent(pruned, "model"), ["tflite:float32"])
    assert rows["tflite:float32@trained"]["engine"] == whole["tflite:float32"].name
    assert rows["tflite:int8"]["versus_parent"]["size_ratio"] > 4
    gated = {result["engine"] for result in document["gate"]}
    assert gated == {"keras:float32", "tflite:float32", "tflite:int8"}
    kept = rows["tflite:float32"]["operating_point"]
    assert kept["rule"] == PARENT_SENSITIVITY
    page = report_model(store, pruned, loose).file("report.html").read_text()
    assert "tflite:float32@trained" in page


def test_a_budget_in_latency_is_measured_on_the_engine_that_counts(store: Store) -> None:
    """The candidates are timed as int8 engines; what was found fast enough is what is kept."""
    made = train_recipe(store, recipe(keep_latency=0.8, criterion="l1", multiple=4))
    before, after = made.facts["pruned"]["macs"]
    assert after < before
    assert 0 < made.facts["pruned"]["rounds"][0]["kept"] < 1.5  # measured anew, so it may waver


@pytest.mark.parametrize(
    ("prune", "said"),
    [
        ({}, "expected one of keep_macs, keep_parameters, keep_latency"),
        ({"keep_macs": 0.5, "keep_parameters": 0.5}, "expected one of keep_macs"),
        ({"keep_macs": 0.5, "criterion": "tayler"}, "Did you mean 'taylor'"),
        ({"keep_macs": 1.5}, "keep_macs"),
        ({"keep_latency": 0.5, "latency_on": "tflite:int9"}, "has no precision 'int9'"),
        ({"keep_macs": 0.5, "recover": {"epochs": 2, "grow": [32]}}, "takes neither grow"),
    ],
)
def test_what_makes_no_sense_is_refused_before_any_work(prune: dict[str, Any], said: str) -> None:
    document = json.loads(json.dumps(TINY))
    document["compress"] = [{"prune": prune}]
    with pytest.raises(UsageError, match=said):
        plan_recipe(parse_recipe(document))


def test_pruning_comes_before_rounding() -> None:
    document = json.loads(json.dumps(TINY))
    document["compress"] = [{"qat": {}}, {"prune": {"keep_macs": 0.5}}]
    with pytest.raises(UsageError, match="prune cannot follow qat"):
        plan_recipe(parse_recipe(document))


def test_the_command_leads_to_the_same_stage(store: Store, pruned: Artefact) -> None:
    """Same options, same artefact: nothing is made again."""
    origin = store.parent(pruned, "model")
    settings = [f"recover.{key}={value}" for key, value in RECOVER.items()]
    options = [word for item in (*settings, "images=32") for word in ("--set", item)]
    command = ["prune", origin.name, "--keep-macs", "0.4", "--iterations", "2", *options]
    done = CliRunner().invoke(cli, [*command, "--json", "--workspace", str(store.workspace)])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["model"] == pruned.name
