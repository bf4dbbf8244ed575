"""Pruning as a stage: a smaller model, recovered, converted as any other."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from lesiontk.backends.execution import Execution
from lesiontk.backends.reference_outputs import run_engine
from lesiontk.backends.tensorrt.backend import TensorRTBackend
from lesiontk.bench.remote.transport import UnreachableError
from lesiontk.cli.main import cli
from lesiontk.data.images import open_images
from lesiontk.errors import MissingRequirementError, UsageError
from lesiontk.evaluate.operating_point import PARENT_SENSITIVITY
from lesiontk.recipe import Recipe, parse_recipe
from lesiontk.records import (
    MODEL_FILE,
    Artefact,
    Availability,
    EngineFootprint,
    Footprint,
    ModelFacts,
)
from lesiontk.stages import prune
from lesiontk.stages.bench import read_benchmark
from lesiontk.stages.parent_predictions import SOFT_TARGETS
from lesiontk.stages.prune import WIDTHS
from lesiontk.stages.remote_timing import RemoteDevice
from lesiontk.store import Store
from lesiontk.technique import describe_step
from lesiontk.workflow.benchmark import benchmark_model, report_model
from lesiontk.workflow.compress import compress_model
from lesiontk.workflow.convert import convert_model
from lesiontk.workflow.plan import plan_recipe
from lesiontk.workflow.train import train_recipe
from tests.tiny.recipe import TINY, tiny_recipe
from tests.tiny.recipe import TRAIN as RECOVER

LOOSE = ["calibration.images=32", "verify.min_agreement_int8=0", "verify.max_mean_drift_int8=1"]


def recipe(**prune: Any) -> Recipe:
    return tiny_recipe(*([{"prune": {"recover": RECOVER, **prune}}] if prune else []))


@pytest.fixture(scope="module")
def store(tiny_store: Store) -> Store:
    return tiny_store


@pytest.fixture(scope="module")
def pruned(store: Store) -> Artefact:
    return train_recipe(store, recipe(keep_macs=0.4, images=32, iterations=2))


def test_it_keeps_the_share_that_was_asked_for(store: Store, pruned: Artefact) -> None:
    facts = pruned.facts["change"]
    before, after = facts["macs"]
    assert 0.3 * before < after <= 0.4 * before
    assert [round_["kept"] <= limit for round_, limit in zip(
        facts["rounds"], (0.4**0.5, 0.4), strict=True
    )] == [True, True]  # fmt: skip
    assert facts["parameters"][1] < facts["parameters"][0]
    assert pruned.facts["parameters"] < store.parent(pruned, "model").facts["parameters"]


def test_all_that_listen_to_a_model_ask_it_once(store: Store, pruned: Artefact) -> None:
    """What it says is of the training images alone, and is what it answers."""
    parent = store.parent(pruned, "model")
    other = compress_model(store, parent, "prune", {"keep_macs": 0.6, "recover": RECOVER})
    soft_targets = store.parent(other, "soft_targets")
    assert soft_targets.path == store.parent(pruned, "soft_targets").path
    images = open_images(store.parent(other, "images"))
    said, rows = np.load(soft_targets.file(SOFT_TARGETS)), images.indices("train")
    answers = run_engine(parent.file(MODEL_FILE), images.pixels[rows], threads=1).outputs
    assert np.abs(said[rows] - answers).max() < 1e-4
    assert not np.delete(said, rows, axis=0).any()
    alone = compress_model(
        store, parent, "prune", {"keep_macs": 0.6, "recover": RECOVER}, ["distill=null"]
    )
    assert "soft_targets" not in alone.manifest.parents


def test_the_widths_are_told(pruned: Artefact) -> None:
    with pruned.file(WIDTHS).open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    kept = {row["layer"]: int(row["kept"]) for row in rows}
    assert kept["logits"] == 7
    convolutions = [row for row in rows if row["kind"] == "Conv2D"]
    assert all(int(row["kept"]) % 8 == 0 for row in convolutions)
    assert any(int(row["kept"]) < int(row["channels"]) for row in convolutions)
    assert sum(int(row["macs_kept"]) for row in rows) == pruned.facts["change"]["macs"][1]


@pytest.mark.parametrize(
    ("counted", "options"),
    [
        ("parameters", {"keep_parameters": 0.5, "criterion": "l2"}),
        (
            "macs",
            {
                "keep_macs": 0.5,
                "criterion": "geometric_median",
                "scope": "per_layer",
                "multiple": 1,
            },
        ),
        ("macs", {"keep_macs": 0.5, "criterion": "batchnorm_scale"}),
    ],
    ids=["parameters", "per_layer", "batchnorm_scale"],
)
def test_the_budget_is_kept_by_every_way_to_choose(
    store: Store, counted: str, options: dict[str, Any]
) -> None:
    made = train_recipe(store, recipe(**options))
    before, after = made.facts["change"][counted]
    assert 0.4 * before < after <= 0.5 * before
    with made.file(WIDTHS).open(newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["layer"] != "logits"]
    shares = [int(row["kept"]) / int(row["channels"]) for row in rows]
    if "scope" in options:  # the same share of each layer, but for whole widths
        assert max(shares) - min(shares) < 0.2
    else:
        assert max(shares) - min(shares) > 0.2


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
    loose = [*LOOSE, "bench.rounds=20", "gate=balanced_accuracy >= parent - 0.5 @ 0.95"]
    benchmark = read_benchmark(benchmark_model(store, pruned, targets, loose))
    against = {
        target: row.versus_parent and row.versus_parent.parent_name
        for target, row in benchmark.by_target.items()
    }
    assert against == {
        "keras:float32@trained": None,
        "tflite:float32@trained": "keras:float32@trained",
        "keras:float32": "keras:float32@trained",
        "tflite:float32": "tflite:float32@trained",
        "tflite:int8": "tflite:float32@trained",
    }
    rows = benchmark.by_target
    whole = store.resolve(rows["tflite:float32@trained"].engine, "engine")
    assert store.parent(whole, "source").name == store.parent(pruned, "model").name
    versus = rows["tflite:int8"].versus_parent
    assert versus is not None
    assert versus.size_ratio > 4
    gated = {verdict.engine for verdict in benchmark.gate}
    assert gated == {"keras:float32", "tflite:float32", "tflite:int8"}
    assert rows["tflite:float32"].point.rule == PARENT_SENSITIVITY
    page = report_model(store, pruned, loose).file("report.html").read_text()
    assert "tflite:float32@trained" in page


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Latency is an engine's size in KiB: no test measures time. Names the engines asked for."""
    timed: list[str] = []

    def compare(target: str, before: Path, after: Path, *_: Any) -> Footprint:
        timed.extend(path.name for path in (before, after))
        sizes = (path.stat().st_size for path in (before, after))
        return Footprint(target, 1, *(EngineFootprint(size, size, size / 1024) for size in sizes))

    monkeypatch.setattr("lesiontk.stages.removal.compare_engines", compare)
    return timed


def test_a_budget_in_latency_is_measured_on_the_engine_that_counts(
    store: Store, clock: list[str]
) -> None:
    """The candidates are timed as int8 engines, and the largest that is fast enough is kept."""
    made = train_recipe(store, recipe(keep_latency=0.8, criterion="l1", multiple=4))
    assert set(clock) == {"tflite_int8.tflite"}
    assert made.facts["change"]["latency"] == {
        "engine": "tflite:int8",
        "wanted": 0.8,
        "device": "",
    }
    footprint = made.read_facts(ModelFacts).footprint
    assert footprint is not None
    ratio = footprint.after.median_ms / footprint.before.median_ms
    assert 0.7 < ratio <= 0.8
    whole, small = (
        convert_model(store, model, ["tflite:int8"], LOOSE)["tflite:int8"]
        for model in (store.parent(made, "model"), made)
    )
    share = small.facts["size_bytes"] / whole.facts["size_bytes"]
    assert share == pytest.approx(ratio, abs=0.02)


def test_a_device_decides_whether_the_budget_is_kept(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On it half of the channels save less than they do here."""
    urls: set[str] = set()

    def compare(remote: RemoteDevice, target: str, before: Path, after: Path, _: Any) -> Footprint:
        urls.add(remote.url)
        sizes = [path.stat().st_size for path in (before, after)]
        times = (10 + 10 * size / sizes[0] for size in sizes)
        found = [EngineFootprint(s, s, t) for s, t in zip(sizes, times, strict=True)]
        return Footprint(target, 20, *found, device=remote.url)

    monkeypatch.setattr("lesiontk.stages.remote_timing.find_bundle", lambda _: None)
    monkeypatch.setattr("lesiontk.stages.remote_timing.compare_on", compare)
    options = {"keep_latency": 0.8, "latency_device": "ssh://board", "multiple": 4}
    made = train_recipe(store, recipe(criterion="l1", **options))
    assert urls == {"ssh://board"}
    facts = made.read_facts(ModelFacts)
    assert facts.footprint is not None
    assert facts.footprint.after.median_ms <= 16
    assert facts.footprint.after.size_bytes <= 0.6 * facts.footprint.before.size_bytes
    assert "of the latency on int8 TFLite on ssh://board was the budget" in describe_step(
        facts.step
    )


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"keep_macs": 0.5, "latency_device": "ssh://board"}, "belongs to keep_latency"),
        ({"keep_latency": 0.5, "latency_device": "shh://board"}, "Did you mean 'ssh'"),
    ],
)
def test_a_device_that_is_none_is_refused(keys: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        plan_recipe(recipe(**keys))


def test_a_device_that_cannot_be_reached_ends_it_before_the_measurements(
    store: Store, pruned: Artefact, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prune, "cut_channels", lambda *_: pytest.fail("it has begun"))
    options = {"keep_latency": 0.8, "latency_device": "ssh://localhost:1"}
    with pytest.raises(UnreachableError, match="localhost"):
        compress_model(store, store.parent(pruned, "model"), "prune", options)


@pytest.mark.parametrize(
    ("available", "runtime", "said"),
    [
        (Availability(False, "onnxruntime is not installed"), (), "onnxruntime is not installed"),
        (
            Availability(True),
            (Execution("runtime", "TensorRT", "ONNX Runtime", "there is no driver"),),
            r"there is no driver \(ONNX Runtime would run\)",
        ),
    ],
)
def test_no_emulation_is_timed(
    monkeypatch: pytest.MonkeyPatch,
    available: Availability,
    runtime: tuple[Execution, ...],
    said: str,
) -> None:
    monkeypatch.setattr(TensorRTBackend, "available", lambda self: available)
    monkeypatch.setattr(TensorRTBackend, "examine_runtime", lambda self: runtime)
    with pytest.raises(MissingRequirementError, match=rf"tensorrt:int8 cannot be measured.*{said}"):
        plan_recipe(recipe(keep_latency=0.5, latency_on="tensorrt:int8"))


def test_an_engine_that_runs_here_may_be_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = Execution("runtime", "TensorRT", "TensorRT", "10.0")
    monkeypatch.setattr(TensorRTBackend, "examine_runtime", lambda self: (runs,))
    assert plan_recipe(recipe(keep_latency=0.5, latency_on="tensorrt:int8"))


@pytest.mark.parametrize(
    ("prune", "said"),
    [
        ({}, "expected one of keep_macs, keep_parameters, keep_latency"),
        ({"keep_macs": 0.5, "keep_parameters": 0.5}, "expected one of keep_macs"),
        ({"keep_macs": 0.5, "criterion": "tayler"}, "Did you mean 'taylor'"),
        ({"keep_macs": 1.5}, "keep_macs"),
        ({"keep_latency": 0.5, "latency_on": "tflite:int9"}, "has no precision 'int9'"),
        ({"keep_macs": 0.5, "recover": {"epochs": 2, "grow": [32]}}, "accepts neither grow"),
        ({"keep_macs": 0.5, "latency_on": "tflite:int8"}, "latency_on belongs to keep_latency"),
        ({"keep_macs": 0.5, "criterion": "l1", "images": 32}, "images belongs to .* taylor"),
    ],
)
def test_what_makes_no_sense_is_refused_before_any_work(prune: dict[str, Any], said: str) -> None:
    document = json.loads(json.dumps(TINY))
    document["compress"] = [{"prune": prune}]
    with pytest.raises(UsageError, match=said):
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
