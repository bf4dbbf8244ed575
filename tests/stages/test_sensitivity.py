"""A network with one layer that int8 ruins: it is found, kept in float, and the gate is met."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from lesiontk.backends import open_engine
from lesiontk.backends.keras.backend import load_model
from lesiontk.backends.reference_outputs import engine_file
from lesiontk.cli.main import cli
from lesiontk.compress.mixed_precision import SearchResult
from lesiontk.compress.sensitivity import Trial
from lesiontk.data.images import open_images
from lesiontk.errors import GateFailedError, UsageError
from lesiontk.recipe import parse_recipe
from lesiontk.records import MODEL_FILE, Artefact
from lesiontk.stages import sensitivity as sensitivity_stage
from lesiontk.stages.sensitivity import TrialEngines, TrialLog, describe_search, rank_layers
from lesiontk.store import Store
from lesiontk.workflow.benchmark import report_model
from lesiontk.workflow.convert import convert_model, measure_sensitivity
from lesiontk.workflow.plan import plan_recipe
from lesiontk.workflow.train import import_file, train_recipe
from tests.tiny.recipe import TINY, tiny_recipe

SETTINGS = (
    "data.source=synthetic",
    "data.synthetic.lesions=84",
    "data.synthetic.image_size=48",
    "data.synthetic.seed=3",
    "calibration.images=32",
    "quantize.correct_bias=false",
    "sensitivity.images=16",
    "verify.min_agreement_int8=0",
    "verify.max_mean_drift_int8=1",
    "evaluate.resamples=100",
    "gate=accuracy >= parent - 0.15 @ 0.95",
)


@pytest.fixture(scope="module")
def store(tiny_store: Store) -> Store:
    return tiny_store


@pytest.fixture(scope="module")
def model(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Artefact:
    """A trained CNN, one channel of whose third block is a thousand times as large.

    The next convolution takes it back, so that in float nothing changes; in int8 the others share
    what few of the 256 steps are left.
    """
    trained = load_model(train_recipe(store, tiny_recipe()).file(MODEL_FILE))
    norm, reader = trained.get_layer("block3_bn"), trained.get_layer("block4_conv")
    gamma, beta, *statistics = norm.get_weights()
    (kernel,) = reader.get_weights()
    gamma[5], beta[5] = gamma[5] * 1000, abs(beta[5]) * 1000 + 1000
    kernel[:, :, 5] = 0
    norm.set_weights([gamma, beta, *statistics])
    reader.set_weights([kernel])
    file = tmp_path_factory.mktemp("file") / "hostile.keras"
    trained.save(str(file))
    return import_file(
        store, file, data=None, task="seven_class", pixels="0..255", overrides=SETTINGS
    )


@pytest.fixture(scope="module", params=["tflite", "onnx", "tensorrt"])
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def sensitivity(store: Store, model: Artefact, backend: str) -> Artefact:
    return measure_sensitivity(store, model, backend)


def test_the_ruined_tensor_is_what_ranks_first(sensitivity: Artefact, backend: str) -> None:
    """It is quantized with the layer that reads it, and but for TensorRT with its maker too."""
    rows = rank_layers(sensitivity)
    ruined = ("block4",) if backend == "tensorrt" else ("block3", "block4")
    assert len(rows) == sensitivity.facts["layers"] > 6
    assert all(any(name in row.layer for name in ruined) for row in rows[: len(ruined)])
    assert rows[0].mean_drift > 5 * rows[len(ruined)].mean_drift


def test_the_gate_is_missed_without_them_and_met_with_them(sensitivity: Artefact) -> None:
    trials = {tuple(trial["kept"]): trial for trial in sensitivity.facts["trials"]}
    kept = tuple(sensitivity.facts["kept"])
    assert not trials[()]["passed"]
    assert trials[kept]["passed"]
    assert 1 <= len(kept) <= 2
    assert set(kept) <= {row.layer for row in rank_layers(sensitivity)[:2]}


def test_the_mixed_engine_is_its_parent_where_int8_is_not(
    store: Store, model: Artefact, backend: str, sensitivity: Artefact
) -> None:
    with pytest.raises(GateFailedError, match="constant output is 1"):
        convert_model(store, model, [f"{backend}:int8"])
    engines = convert_model(store, model, [f"{backend}:float32", f"{backend}:mixed"])
    parent, mixed = engines.values()
    assert mixed.facts["quantization"]["float_layers"] == len(sensitivity.facts["kept"])
    images = open_images(store.parent(model, "images"))
    pixels = images.pixels[images.indices("test")]
    answers = []
    for made in (parent, mixed):
        with open_engine(engine_file(made)) as engine:
            answers.append(engine.predict(pixels))
    assert (answers[0].argmax(axis=1) == answers[1].argmax(axis=1)).mean() > 0.9
    assert np.abs(answers[0] - answers[1]).mean() < 0.02


def watch(monkeypatch: pytest.MonkeyPatch, *, dies_at: int = 0) -> list[frozenset[str]]:
    """The layers in float of each engine that is made from now on; making one of them is killed."""
    asked: list[frozenset[str]] = []
    run = TrialEngines.run

    def watched(self: TrialEngines, float_layers: frozenset[str], *args: Any, **kwargs: Any) -> Any:
        asked.append(float_layers)
        if len(asked) == dies_at:
            raise KeyboardInterrupt
        return run(self, float_layers, *args, **kwargs)

    monkeypatch.setattr(sensitivity_stage.TrialEngines, "run", watched)
    return asked


@pytest.mark.parametrize("phase", ["ranking", "search"])
def test_a_killed_search_goes_on_where_it_was(
    phase: str, store: Store, model: Artefact, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another number of images is another artefact; what was tried before counts as tried."""
    layers = measure_sensitivity(store, model, "onnx").facts["layers"]
    dies_at = {"ranking": 7, "search": layers + 2}[phase]
    change = [f"sensitivity.images={20 + dies_at}", "sensitivity.trials=2"]
    asked = watch(monkeypatch, dies_at=dies_at)
    with pytest.raises(KeyboardInterrupt):
        measure_sensitivity(store, model, "onnx", change)
    made = measure_sensitivity(store, model, "onnx", change)
    assert len(made.facts["trials"]) == 2
    assert len(asked) == 1 + layers + 2
    assert asked[dies_at - 1] == asked[dies_at]


def test_where_the_budget_is_used_up_the_result_says_so_and_a_larger_one_goes_on(
    store: Store, model: Artefact, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = watch(monkeypatch)
    change = ["sensitivity.images=21", "sensitivity.trials=1"]
    little = measure_sensitivity(store, model, "onnx", change)
    first = rank_layers(little)[0].layer
    assert (little.facts["kept"], little.facts["untried"]) == (None, [first])
    said = (
        r"the margins are not met .*: sensitivity\.trials \(1\) is exhausted; "
        r"next would be 1 of \d+ "
    )
    assert re.search(said, little.facts["outcome"])
    with pytest.raises(
        GateFailedError, match=f"no mixed engine meets the gate: {said}layers in float32"
    ):
        convert_model(store, model, ["onnx:mixed"], change)
    shown = CliRunner().invoke(
        cli,
        ["sensitivity", model.name, "--workspace", str(store.workspace), "--on", "onnx"]
        + [word for key in change for word in ("--set", key)],
    )
    assert shown.exit_code == 0
    assert "is exhausted" in shown.output
    assert f"next: {first[:20]}" in shown.output

    done = len(asked)
    assert done == little.facts["layers"] + 1
    whole = measure_sensitivity(store, model, "onnx", change[:1])
    assert whole.facts["trials"][0] == little.facts["trials"][0]
    assert len(asked) == done + len(whole.facts["trials"]) - 1
    assert whole.facts["untried"] is None
    kept, layers = len(whole.facts["kept"]), whole.facts["layers"]
    assert whole.facts["outcome"].endswith(f"with {kept} of {layers} layers in float32")


def test_a_gate_that_no_layer_can_meet_says_so() -> None:
    said = describe_search(SearchResult(None), 9, 80, 50, "float16")
    assert said == (
        "the margins are not met on validation (n = 80), not even with all 50 layers in float16"
    )
    best = describe_search(SearchResult(frozenset("ab"), frozenset("a")), 9, 80, 50, "float16")
    assert best.endswith(
        "with 2 of 50 layers in float16; fewer may suffice: sensitivity.trials (9) is exhausted; "
        "next would be 1 of 50 layers in float16"
    )


def test_trials_are_kept_in_their_file(tmp_path: Path) -> None:
    first = TrialLog(tmp_path / "trials.json")
    trial, another = Trial(("a",), ()), Trial((), ())
    assert first.load_or_run("a", Trial, lambda: trial) == trial
    again = TrialLog(tmp_path / "trials.json")
    assert again.load_or_run("a", Trial, lambda: another) == trial
    assert again.load_or_run("b", Trial, lambda: another) == another


def test_without_a_gate_nothing_is_good_enough(store: Store) -> None:
    for gate in ([], ["p90_ms <= 20"]):
        recipe = parse_recipe({**TINY, "convert": ["tflite:mixed"], "gate": gate})
        with pytest.raises(UsageError, match="expected a gate such as"):
            plan_recipe(recipe)


def test_what_a_threshold_decides_cannot_guide_a_search(store: Store, model: Artefact) -> None:
    change = ["gate=sensitivity[malignant] >= parent - 0.05 @ 0.95"]
    with pytest.raises(UsageError, match="can guide the search for onnx:mixed"):
        measure_sensitivity(store, model, "onnx", change)


def test_the_commands_show_and_make_it(
    store: Store, model: Artefact, backend: str, sensitivity: Artefact
) -> None:
    runner = CliRunner()
    common = [model.name, "--workspace", str(store.workspace)]
    shown = runner.invoke(cli, ["sensitivity", *common, "--on", backend], catch_exceptions=False)
    assert shown.exit_code == 0, shown.output
    assert sensitivity.facts["kept"][0][:20] in shown.output
    document = json.loads(
        runner.invoke(cli, ["sensitivity", *common, "--on", backend, "--json"]).stdout
    )
    assert document["kept"] == sensitivity.facts["kept"]
    made = json.loads(runner.invoke(cli, ["quantize", *common, "--mixed", "--json"]).stdout)
    assert set(made) == {"tflite:mixed", "onnx:mixed"}


def test_what_is_told_of_an_engine_is_what_it_was_made_with(
    store: Store, model: Artefact, tmp_path: Path
) -> None:
    """The model's recipe has other settings: the search is not run again, nor is a gate missed."""
    change = ["sensitivity.images=18", "gate=balanced_accuracy >= parent - 0.05 @ 0.95"]
    made = convert_model(store, model, ["tflite:mixed"], change)["tflite:mixed"]
    own = store.parent(made, "sensitivity")
    known = {artefact.name for artefact in store.list_artefacts("sensitivity")}
    report = report_model(store, model, ["explain.images=0", "gate=[]", "bench.rounds=20"])
    assert {artefact.name for artefact in store.list_artefacts("sensitivity")} == known
    assert report.manifest.parents["sensitivity:tflite"].name == own.name


def test_a_gate_on_an_unknown_metric_is_refused_before_anything_is_measured(
    store: Store, model: Artefact, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(sensitivity_stage.TrialEngines, "run")
    change = ["sensitivity.images=19", "gate=recall[nothing] >= 0.1"]
    with pytest.raises(UsageError, match=r"names the metric 'recall\[nothing\]'"):
        measure_sensitivity(store, model, "onnx", change)
