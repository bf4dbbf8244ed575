"""Sparsifying and clustering as stages, alone, after one another, and through int8."""

from __future__ import annotations

import csv
import json
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from lesiontk.backends.keras.backend import load_model
from lesiontk.backends.reference_outputs import engine_file
from lesiontk.cli.main import cli
from lesiontk.compress.batchnorm_folding import fold_batchnorm
from lesiontk.compress.keras_layers import read_layers
from lesiontk.compress.kernel_constraint import list_constrained
from lesiontk.errors import UsageError
from lesiontk.recipe import Recipe
from lesiontk.records import MODEL_FILE, Artefact, ModelFacts
from lesiontk.report.formatting import format_bytes, format_latency
from lesiontk.stages.constrained_training import KERNELS
from lesiontk.store import Store
from lesiontk.technique import SHARED_VALUES, ZEROS, list_left
from lesiontk.workflow.benchmark import report_model
from lesiontk.workflow.convert import convert_model
from lesiontk.workflow.plan import plan_recipe
from lesiontk.workflow.train import train_recipe
from tests.report.page import Page
from tests.tiny.recipe import TRAIN as RECOVER
from tests.tiny.recipe import tiny_recipe

SPARSE = {"sparsify": {"sparsity": 0.7, "rounds": 2, "recover": RECOVER}}
FOURS = {"sparsify": {"pattern": "2:4", "recover": RECOVER}}
CLUSTERED = {"cluster": {"clusters": 8, "recover": RECOVER}}
QAT = {"qat": {"train": {**RECOVER, "learning_rate": 1e-4}, "images": 32}}


def recipe(*steps: dict[str, Any]) -> Recipe:
    return tiny_recipe(*steps, verify={"min_agreement_int8": 0.0})


def read_rows(model: Artefact) -> list[dict[str, Any]]:
    with model.file(KERNELS).open(newline="") as stream:
        return [
            {k: v if k == "layer" else int(v) for k, v in row.items()}
            for row in csv.DictReader(stream)
        ]


@pytest.fixture(scope="module")
def store(tiny_store: Store) -> Store:
    return tiny_store


@pytest.fixture(scope="module")
def sparse(store: Store) -> Artefact:
    return train_recipe(store, recipe(SPARSE))


@pytest.fixture(scope="module")
def both(store: Store) -> Artefact:
    return train_recipe(store, recipe(SPARSE, CLUSTERED))


def test_the_share_that_was_asked_for_is_zero_after_the_recovery(sparse: Artefact) -> None:
    assert sparse.facts["change"]["sparsity"] == pytest.approx(0.7, abs=0.01)
    for row in read_rows(sparse):
        assert row["zeros"] / row["weights"] == pytest.approx(0.7, abs=0.02)


def test_the_rest_has_learned_on(store: Store, sparse: Artefact) -> None:
    before = load_model(store.parent(sparse, "model").file(MODEL_FILE))
    after = load_model(sparse.file(MODEL_FILE))
    name = read_rows(sparse)[0]["layer"]
    theirs, ours = (m.get_layer(name).get_weights()[0] for m in (before, after))
    kept = ours != 0
    assert (theirs[kept] != ours[kept]).mean() > 0.9
    assert np.abs(theirs[kept]).mean() > np.abs(theirs[~kept]).mean()


def test_it_is_told_that_the_file_compresses_better_and_how_fast_it_is(sparse: Artefact) -> None:
    footprint = sparse.read_facts(ModelFacts).footprint
    assert footprint is not None
    before, after = footprint.before, footprint.after
    assert after.size_bytes == pytest.approx(before.size_bytes, rel=0.01)
    assert after.deflated_bytes < 0.6 * before.deflated_bytes
    assert footprint.n >= 20
    assert min(before.median_ms, after.median_ms) > 0


def test_the_report_shows_what_was_measured_of_both_steps(store: Store, both: Artefact) -> None:
    sparse = store.parent(both, "model")
    assert all(step["footprint"] is None for step in both.facts["history"])
    made = report_model(store, both, ["explain.images=0", "bench.rounds=20"])
    page = Page(made.file("report.html").read_text(encoding="utf-8"))
    table = page.tables["Sizes and latencies before and after"]
    assert [row[0] for row in table[1:]] == ["sparsify", "cluster"]
    for row, model in zip(table[1:], (sparse, both), strict=True):
        footprint = model.read_facts(ModelFacts).footprint
        assert footprint is not None
        states = (footprint.before, footprint.after)
        assert row[1:] == [
            "tflite:float32",
            *(format_bytes(state.size_bytes) for state in states),
            *(format_bytes(state.deflated_bytes) for state in states),
            *(format_latency(state.median_ms) for state in states),
        ]


def test_clusters_keep_the_zeros_and_their_number(both: Artefact) -> None:
    for row in read_rows(both):
        assert row["values"] <= 8
        assert row["zeros"] / row["weights"] == pytest.approx(0.7, abs=0.02)
    assert list_left(both.read_facts(ModelFacts).line) == {ZEROS, SHARED_VALUES}


@pytest.mark.parametrize(
    "steps",
    [
        pytest.param((SPARSE, QAT), id="sparse", marks=pytest.mark.slow),
        pytest.param((SPARSE, CLUSTERED, QAT), id="both"),
        pytest.param((CLUSTERED, QAT), id="clustered", marks=pytest.mark.slow),
        pytest.param((FOURS, QAT), id="2:4"),
    ],
)
def test_quantization_aware_training_keeps_structures(
    store: Store, both: Artefact, steps: tuple[dict[str, Any], ...]
) -> None:
    model = train_recipe(store, recipe(*steps))
    parent = fold_batchnorm(load_model(store.parent(model, "model").file(MODEL_FILE)))
    trained = load_model(model.file(MODEL_FILE))
    moved = 0.0
    for name in list_constrained(read_layers(parent)):
        theirs, ours = (m.get_layer(name).get_weights()[0] for m in (parent, trained))
        np.testing.assert_array_equal(ours == 0, theirs == 0)
        moved = max(moved, float(np.abs(ours - theirs).max()))
        if FOURS in steps and ours.shape[-2] % 4 == 0:
            fours = (ours == 0).reshape(-1, 4, ours.shape[-1])
            assert (fours.sum(axis=1) >= 2).all()
        if CLUSTERED in steps:
            for channel in range(ours.shape[-1]):
                assert len(np.unique(ours[..., channel])) <= 8
    assert moved > 0
    told = {"sparsify": ZEROS, "cluster": SHARED_VALUES}
    assert model.facts["change"]["keeps"] == [told[name] for step in steps[:-1] for name in step]


def test_zeros_are_zeros_in_the_int8_engine(store: Store, sparse: Artefact) -> None:
    from lesiontk.backends.tflite.graph import TYPE_NAMES, read_model

    engine = convert_model(store, sparse, ["tflite:int8"])["tflite:int8"]
    flat = read_model(engine_file(engine).read_bytes())
    zeros = weights = 0
    for tensor in flat.subgraphs[0].tensors:
        data = flat.buffers[tensor.buffer].data
        if data is not None and TYPE_NAMES[tensor.type] == "int8":
            values = np.frombuffer(bytes(data), np.int8)
            zeros, weights = zeros + int((values == 0).sum()), weights + values.size
    held = sum(row["weights"] for row in read_rows(sparse))
    assert zeros >= 0.69 * held
    assert weights >= held


def test_two_of_four_leaves_dense_what_has_no_fours(store: Store) -> None:
    """Pruned to any width: some layers read channels that are no multiple of four."""
    pruned = {"prune": {"keep_macs": 0.6, "criterion": "l1", "multiple": 3, "recover": RECOVER}}
    model = train_recipe(
        store, recipe(pruned, {"sparsify": {"pattern": "2:4", "recover": RECOVER}})
    )
    dense = model.facts["change"]["dense"]
    network = load_model(model.file(MODEL_FILE))
    assert 0 < len(dense) < len(read_rows(model))
    for row in read_rows(model):
        kernel = network.get_layer(row["layer"]).get_weights()[0]
        assert (kernel.shape[-2] % 4 != 0) == (row["layer"] in dense)
        if row["layer"] in dense:
            assert row["zeros"] == 0
        else:
            fours = (kernel == 0).reshape(-1, 4, kernel.shape[-1])
            assert (fours.sum(axis=1) >= 2).all()


def test_blocks_are_zeroed_whole_within_a_place(store: Store) -> None:
    """Layers whose inputs are no whole blocks of three stay dense, and are named."""
    blocks = {"pattern": "block", "block": [3, 4], "sparsity": 0.5, "rounds": 1, "recover": RECOVER}
    model = train_recipe(store, recipe({"sparsify": blocks}))
    network, dense = load_model(model.file(MODEL_FILE)), model.facts["change"]["dense"]
    assert 0 < len(dense) < len(read_rows(model))
    for row in read_rows(model):
        kernel = network.get_layer(row["layer"]).get_weights()[0]
        inputs, outputs = kernel.shape[-2:]
        assert (inputs % 3 != 0) == (row["layer"] in dense)
        if row["layer"] in dense:
            assert row["zeros"] == 0
        else:
            zeros = (kernel == 0).reshape(-1, inputs // 3, 3, outputs // 4, 4).sum(axis=(2, 4))
            assert set(np.unique(zeros)) == {0, 12}
            assert row["zeros"] / row["weights"] == pytest.approx(0.5, abs=0.01)


def test_two_of_four_is_half() -> None:
    step = plan_recipe(recipe({"sparsify": {"pattern": "2:4"}}))["model:1:sparsify"]
    assert step.config.sparsity == 0.5  # type: ignore[attr-defined]
    with pytest.raises(UsageError, match=r"with the pattern 2:4 sparsity is 0\.5"):
        plan_recipe(recipe({"sparsify": {"pattern": "2:4", "sparsity": 0.7}}))


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        (({"sparsify": {"pattern": "2:4", "rounds": 2}},), "rounds belongs to the other patterns"),
        (({"sparsify": {"pattern": "2:4", "ramp_epochs": 2}},), "ramp_epochs belongs to"),
        (({"sparsify": {"block": [1, 8]}},), "block belongs to the pattern block"),
        (({"sparsify": {"recover": {"grow": [32]}}},), "recover accepts neither grow nor"),
        (({"cluster": {"clusters": 1}},), "greater than or equal to 2"),
    ],
)
def test_a_key_or_a_number_that_makes_no_sense_is_refused(
    steps: tuple[dict[str, Any], ...], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        plan_recipe(recipe(*steps))


def test_the_commands_lead_to_the_same_stages(store: Store, both: Artefact) -> None:
    runner = CliRunner()
    workspace = ["--workspace", str(store.workspace), "--json"]
    model = store.parent(store.parent(both, "model"), "model").name
    settings = ["recover.batch_size=16", "recover.augment=none", "recover.epochs=1"]
    options = [part for s in [*settings, "recover.learning_rate=0.001"] for part in ("--set", s)]
    ramp = ["--set", "rounds=2", "--sparsity", "0.7"]
    done = runner.invoke(cli, ["sparsify", model, *ramp, *options, *workspace])
    assert done.exit_code == 0, done.output
    made = json.loads(done.stdout)["model"]
    assert made == store.parent(both, "model").name
    few = ["--clusters", "8"]
    done = runner.invoke(cli, ["cluster", made, *few, *options, *workspace])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["model"] == both.name
