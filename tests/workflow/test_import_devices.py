"""A device's own latencies decide the gates: measured by a bundle's runner, matched by content."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from lesiontk.bench.device import DeviceBench, index_devices, read_device_bench
from lesiontk.cli.main import cli
from lesiontk.errors import DataError, UsageError
from lesiontk.evaluate.device_gate import DeviceFigures, judge_device
from lesiontk.recipe.gate_grammar import parse_gate
from lesiontk.records import Artefact
from lesiontk.stages.bench import read_benchmark
from lesiontk.store import Store
from lesiontk.workflow.benchmark import benchmark_model, report_model
from lesiontk.workflow.bundle import judged_benchmark
from lesiontk.workflow.convert import convert_model
from lesiontk.workflow.train import train_recipe
from tests.deploy.bundles import ENGINES, call_runner, make_bundle
from tests.measuring import measuring_here
from tests.tiny.recipe import tiny_recipe

GATE = "p90_ms <= 20 @ 0.95"
RULES = ["bench.rounds=20", "evaluate.resamples=100", f"gate=[{GATE}]"]


@pytest.fixture(scope="module", autouse=True)
def measured_here() -> Iterator[None]:
    """Engines are measured in this process, but those on the board."""
    with measuring_here():
        yield


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a board prints: a real runner's document, of a published engine."""
    folder = tmp_path_factory.mktemp("board")
    make_bundle(folder / "bundle", "tflite_int8.tflite", "linux-x86-64")
    words = ["bench", "--json", "--rounds", "60", "--warmup", "2", "--device", "ward 3"]
    done = call_runner(folder / "bundle", *words)
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def slow(document: dict[str, Any], ms: float) -> dict[str, Any]:
    """Return the document of a slower device: what it measured, each plus some milliseconds.

    At most 5 ms count of a sample: this machine may be busy.
    """
    latency = document["latency_ms"]
    return {
        **document,
        "latency_ms": {
            **latency,
            "samples": [ms + min(sample, 5.0) for sample in latency["samples"]],
        },
    }


def save(path: Path, document: object) -> Path:
    path.write_text(json.dumps(document))
    return path


@pytest.mark.parametrize(("extra_ms", "outcome"), [(0.0, "passed"), (1000.0, "failed")])
def test_the_gate_of_a_file_is_decided_on_the_device(
    extra_ms: float, outcome: str, measured: dict[str, Any], tmp_path: Path
) -> None:
    file = save(tmp_path / "device.json", slow(measured, extra_ms))
    engine = str(ENGINES / "tflite_int8.tflite")
    words = ["bench", engine, "--import", str(file), "--json", "--gate", "p90_ms <= 900"]
    done = CliRunner().invoke(cli, [*words, "--set", "bench.rounds=20"])
    assert done.exit_code == (0 if outcome == "passed" else 1)
    document = json.loads(done.stdout)
    (verdict,) = document["gate"]
    assert verdict["outcome"] == outcome
    assert verdict["method"] == "order statistics of 60 rounds on ward 3"
    (row,) = document["devices"]
    assert (row["device"], row["target"], row["latency_ms"]["n"]) == ("ward 3", engine, 60)
    assert "samples_ms" not in row
    shown = CliRunner().invoke(cli, [word for word in words if word != "--json"])
    assert "on devices" in shown.stdout
    assert "ward 3" in shown.stdout


@pytest.fixture(scope="module")
def converted(tiny_store: Store) -> tuple[Store, Artefact, Artefact]:
    model = train_recipe(tiny_store, tiny_recipe(verify={"min_agreement_int8": 0.0}))
    (engine,) = convert_model(tiny_store, model, ["tflite:float32"]).values()
    return tiny_store, model, engine


def test_a_workspace_remembers_the_device(
    converted: tuple[Store, Artefact, Artefact], measured: dict[str, Any], tmp_path: Path
) -> None:
    store, model, engine = converted
    content = engine.manifest.files[str(engine.facts["file"])]
    own = {**measured["engine"], "content_sha256": getattr(content, "sha256", content)}
    for ms, outcome in ((1000.0, "failed"), (0.0, "passed")):
        file = save(tmp_path / "device.json", {**slow(measured, ms), "engine": own})
        artefact = benchmark_model(store, model, ["tflite:float32"], RULES, measurements=[file])
        benchmark = read_benchmark(artefact)
        found = {v.engine: (str(v.outcome), v.method) for v in benchmark.verdicts}
        assert found["tflite:float32"] == (outcome, "order statistics of 60 rounds on ward 3")
        assert [row.device for row in benchmark.devices] == ["ward 3"]
    report = report_model(store, model, RULES)
    assert "ward 3" in (report.path / "report.html").read_text()
    assert judged_benchmark(store, engine).facts["gates"] is not None
    other = save(tmp_path / "other.json", measured)
    with pytest.raises(DataError, match=r"measured with an engine of content .* expected one of"):
        benchmark_model(store, model, ["tflite:float32"], RULES, measurements=[other])


Change = Callable[[dict[str, Any]], object]
CHANGES: dict[str, tuple[Change, str]] = {
    "other format": (lambda d: d.update(format=9), "is no measurement of a device"),
    "no samples": (lambda d: d["latency_ms"].update(samples=[]), "latencies are missing"),
    "negative": (lambda d: d["latency_ms"].update(samples=[1.0, -1.0]), "or not positive"),
    "text": (lambda d: d["latency_ms"].update(samples=["fast"]), "samples_ms"),
    "no engine": (lambda d: d.pop("engine"), "has no 'engine'"),
    "not as expected": (lambda d: d["answers"].update(as_expected=False), "were not as expected"),
    "markup": (lambda d: d.update(device="<script>"), "the device is called '<script>'"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_measurement_that_cannot_be_used_is_refused(
    name: str, measured: dict[str, Any], tmp_path: Path
) -> None:
    change, said = CHANGES[name]
    document = json.loads(json.dumps(measured))
    change(document)
    with pytest.raises(DataError, match=said):
        read_device_bench(save(tmp_path / "device.json", document))
    (tmp_path / "text").write_text("no JSON")
    with pytest.raises(DataError, match=r"cannot be read: .* expected the output of a bundle's"):
        read_device_bench(tmp_path / "text")


def test_two_devices_of_an_engine_decide_nothing(measured: dict[str, Any], tmp_path: Path) -> None:
    found = replace(read_device_bench(save(tmp_path / "a", measured)), target="tflite:int8")
    assert DeviceBench.from_document(found.to_document()) == found
    with pytest.raises(UsageError, match=r"two measurements of tflite:int8, on ward 3 and ward 4"):
        index_devices([found, replace(found, device="ward 4")])


def test_memory_is_that_of_the_device() -> None:
    figures = DeviceFigures([[1.0]], 4_000_000, 90_000_000, device="ward 3")
    verdict = judge_device("a", parse_gate("peak_memory_mb <= 100"), figures, "not measured")
    assert (verdict.measured, verdict.method) == (90.0, "as measured on ward 3")


def test_the_energy_of_a_jetson_is_read_and_that_of_others_is_not_known(
    measured: dict[str, Any], tmp_path: Path
) -> None:
    measured_here = read_device_bench(save(tmp_path / "board.json", measured))
    assert measured["energy"]["lacks"].startswith("tegrastats is not on the PATH")
    earlier = {key: value for key, value in measured.items() if key != "energy"}
    without = read_device_bench(save(tmp_path / "earlier.json", earlier))
    jetson = {**measured, "energy": {**measured["energy"], "per_inference_mj": 2.5}}
    found = read_device_bench(save(tmp_path / "jetson.json", jetson))
    assert (measured_here.energy_mj, without.energy_mj, found.energy_mj) == (None, None, 2.5)
    assert found.to_row().energy_mj == 2.5
