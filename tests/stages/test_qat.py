"""Quantization-aware training as a stage: its engines say what the rounded model says."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner

from lesiontk.backends.learned_ranges import LEARNED, match_tensors, read_learned
from lesiontk.backends.onnx.constants import constants_of
from lesiontk.backends.reference_outputs import engine_file
from lesiontk.backends.tensorrt.quantize import symmetric_scale
from lesiontk.cli.main import cli
from lesiontk.compress.layers import Layer
from lesiontk.errors import DataError, GateFailedError, UsageError
from lesiontk.recipe import Recipe
from lesiontk.records import Artefact
from lesiontk.stages import convert as convert_stage
from lesiontk.stages.fake_quant_outputs import OutputPair, run_fake_quantized
from lesiontk.stages.qat import check_ties
from lesiontk.store import Store
from lesiontk.workflow.convert import convert_model
from lesiontk.workflow.plan import plan_recipe
from lesiontk.workflow.train import train_recipe
from lesiontk.workflow.verify import verify_artefact
from tests.tiny.recipe import TRAIN as RECOVER
from tests.tiny.recipe import tiny_recipe

TRAIN = {**RECOVER, "learning_rate": 1e-4}
CHECK = "top-1 agreement with rounding"


def recipe(*steps: dict[str, Any]) -> Recipe:
    loose = {"min_agreement_int8": 0.0, "max_mean_drift_int8": 0.1}  # so small a network wavers
    return tiny_recipe(*steps, verify=loose)


def qat(**options: Any) -> dict[str, Any]:
    return {"qat": {"train": TRAIN, "images": 32, **options}}


@pytest.fixture(scope="module")
def store(tiny_store: Store) -> Store:
    return tiny_store


@pytest.fixture(scope="module")
def model(store: Store) -> Artefact:
    return train_recipe(store, recipe(qat()))


@pytest.fixture(scope="module")
def engines(store: Store, model: Artefact) -> dict[str, Artefact]:
    return convert_model(store, model, ["tflite:int8", "onnx:int8", "tensorrt:int8"])


@pytest.fixture(scope="module")
def pruned(store: Store) -> Artefact:
    """Trained for TensorRT's rounding, after pruning."""
    prune = {"prune": {"keep_macs": 0.5, "images": 16, "recover": TRAIN}}
    return train_recipe(store, recipe(prune, qat(scheme="tensorrt")))


def check_rounding(engine: Artefact) -> None:
    verification = engine.facts["verification"]
    assert verification["rounded_agreement"]["n"] == 32
    assert verification["rounded_agreement"]["mean_absolute_drift"] < 0.01
    (check,) = (c for c in verification["checks"] if c["name"] == CHECK)
    assert check["passed"]
    assert check["bound"] == 0.99


def check_other_rounding(engine: Artefact, reason: str) -> None:
    assert engine.facts["quantization"]["otherwise_than_trained"] == reason
    assert CHECK not in {check["name"] for check in engine.facts["verification"]["checks"]}


def test_the_engines_say_what_the_rounded_model_says(engines: dict[str, Artefact]) -> None:
    for target in ("tflite:int8", "onnx:int8"):
        check_rounding(engines[target])


def test_of_another_rounding_it_is_said(engines: dict[str, Artefact]) -> None:
    reason = "trained for the rounding of tflite, not of tensorrt"
    check_other_rounding(engines["tensorrt:int8"], reason)


def test_tensorrt_says_what_the_model_with_its_rounding_says(
    store: Store, pruned: Artefact
) -> None:
    made = convert_model(store, pruned, ["tensorrt:int8", "tflite:int8"])
    check_rounding(made["tensorrt:int8"])
    reason = "trained for the rounding of tensorrt, not of tflite"
    check_other_rounding(made["tflite:int8"], reason)
    command = ["convert", pruned.name, "--to", "tflite:int8", "--workspace", str(store.workspace)]
    done = CliRunner().invoke(cli, command)
    assert done.exit_code == 0, done.output
    assert f"tflite:int8: {reason}" in done.output


def test_tensorrt_rounds_at_the_learned_scales_alone(store: Store, pruned: Artefact) -> None:
    graph = onnx.load(engine_file(convert_model(store, pruned, ["tensorrt:int8"])["tensorrt:int8"]))
    constants = constants_of(graph.graph)
    scales = [constants[n.input[1]] for n in graph.graph.node if n.op_type == "QuantizeLinear"]
    learned, _ = read_learned(pruned.file(LEARNED))
    known = np.array([1 / 128, *(symmetric_scale(*ends) for ends in learned.values())])  # pixels
    assert len(scales) == 7  # behind pools, too
    assert all(np.isclose(known, scale, rtol=1e-5).any() for scale in scales)


def test_seven_bits_are_not_what_was_trained(store: Store, model: Artefact) -> None:
    few = convert_model(store, model, ["onnx:int8"], ["quantize.reduce_range=true"])["onnx:int8"]
    check_other_rounding(few, "trained for weights of 8 bits, not of 7")


def test_an_engine_that_says_something_else_is_refused(
    store: Store, model: Artefact, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ask_another(*args: Any) -> OutputPair:
        said, received = run_fake_quantized(*args)
        return said, np.roll(received, 1, axis=1)

    monkeypatch.setattr(convert_stage, "run_fake_quantized", ask_another)
    with pytest.raises(GateFailedError, match=r"with rounding is .* 32 training images"):
        convert_model(store, model, ["tflite:int8"], ["verify.min_agreement_qat=0.98"])


def test_an_engine_is_compared_again_when_it_is_verified(
    store: Store, engines: dict[str, Artefact]
) -> None:
    found = verify_artefact(store, engines["tflite:int8"])
    assert found.verification is not None
    assert CHECK in {check.name for check in found.verification.checks}


def test_the_engines_take_the_learned_ranges(
    store: Store, model: Artefact, engines: dict[str, Artefact]
) -> None:
    learned, moving = read_learned(model.file(LEARNED))
    assert "logits" in learned
    assert {"block2_pool", "dropout"} <= moving < set(learned)  # they take what was rounded before
    for engine in engines.values():
        assert engine.facts["quantization"].get("corrected_biases", 0) == 0
        ranges = store.parent(engine, "ranges")
        assert ranges.facts["learned"] == len(learned)
        with ranges.file("ranges.csv").open(newline="") as stream:
            ends = {(float(r["low"]), float(r["high"])) for r in csv.DictReader(stream)}
        assert {(low, high) for low, high in learned.values()} <= ends


def test_they_hold_int8_weights_and_compute_in_int8(engines: dict[str, Artefact]) -> None:
    for engine in engines.values():
        assert engine.facts["verification"]["passed"]
        assert all("softmax" in op.lower() for op in engine.facts["float_operators"])


def test_the_model_has_no_normalization_left(model: Artefact) -> None:
    from lesiontk.backends.keras.backend import load_model
    from lesiontk.records import MODEL_FILE

    kinds = {type(layer).__name__ for layer in load_model(model.file(MODEL_FILE)).layers}
    assert "BatchNormalization" not in kinds
    assert not any("Quantize" in kind for kind in kinds)


def test_it_follows_pruning_and_nothing_follows_it(pruned: Artefact) -> None:
    assert [step["stage"] for step in pruned.facts["history"]] == ["train", "prune"]
    with pytest.raises(UsageError, match="prune cannot follow qat"):
        plan_recipe(recipe(qat(), {"prune": {"keep_macs": 0.5}}))


def test_rounding_is_not_learned_in_half_precision() -> None:
    with pytest.raises(UsageError, match="train does not accept mixed_precision"):
        plan_recipe(recipe(qat(train={**TRAIN, "mixed_precision": True})))


def test_the_command_leads_to_the_same_stage(store: Store, model: Artefact) -> None:
    origin = store.parent(model, "model")
    settings = [f"train.{key}={value}" for key, value in TRAIN.items()]
    options = [word for item in (*settings, "images=32") for word in ("--set", item)]
    command = ["qat", origin.name, *options, "--json", "--workspace", str(store.workspace)]
    done = CliRunner().invoke(cli, command)
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["model"] == model.name


def test_weights_that_are_tied_are_not_parted_by_a_normalization_before_them() -> None:
    layers = (
        Layer("image", "InputLayer", (), (8, 8, 3)),
        Layer("pool", "GlobalAveragePooling2D", ("image",), (3,)),
        Layer("norm", "BatchNormalization", ("pool",), (3,)),
        Layer("logits", "Dense", ("norm",), (2,)),
    )
    check_ties((*layers[:2], replace(layers[3], inputs=("pool",))))
    with pytest.raises(DataError, match="'logits' is clustered, and folding 'norm'"):
        check_ties(layers)


# ------------------------------------------------------------------------- matching


def test_tensors_are_matched_by_their_values_in_either_layout() -> None:
    generator = np.random.default_rng(1)
    a, b = generator.normal(size=(1, 4, 4, 3)), generator.normal(size=(1, 5))
    tensors = {
        "x": a.transpose(0, 3, 1, 2),
        "y": a + 1e-6,
        "z": b.reshape(1, 5, 1, 1),
        "other": a + 0.1,
        "sum": generator.normal(size=(1, 9)),
    }
    assert match_tensors({"conv": a, "dense": b}, tensors) == {
        "x": "conv", "y": "conv", "z": "dense",
    }  # fmt: skip


def test_a_layer_without_a_tensor_is_an_error() -> None:
    a = np.ones((1, 4))
    with pytest.raises(DataError, match="no tensor of the graph has the values of layer 'conv'"):
        match_tensors({"conv": a}, {"x": 2 * a})
    assert match_tensors({"pad": a}, {"x": 2 * a}, moving={"pad"}) == {}
