"""A Jetson's bundle from a workspace contains float16 beside int8, judged as int8 is."""

from __future__ import annotations

import json

import numpy as np
import pytest

from lesiontk.backends import open_engine
from lesiontk.backends.reference_outputs import engine_file
from lesiontk.deploy.runner.contract import read_bundle
from lesiontk.errors import DataError
from lesiontk.evaluate.verdict import Comparand, GateVerdict, Outcome
from lesiontk.records import Artefact
from lesiontk.stages import bundle as stage
from lesiontk.stages.evaluate import read_operating_point
from lesiontk.store import Store
from lesiontk.workflow import bundle as workflow
from lesiontk.workflow.convert import convert_model
from lesiontk.workflow.lineage import engines_of, find_evaluation

JETSON = "jetson-orin-jetpack6"


@pytest.fixture(scope="module")
def int8(tiny_store: Store) -> Artefact:
    model = tiny_store.resolve("latest", "model")
    return convert_model(tiny_store, model, ["tensorrt:int8"])["tensorrt:int8"]


@pytest.fixture(scope="module")
def float16(tiny_store: Store, int8: Artefact) -> Artefact:
    """The engine that bundling made."""
    workflow.bundle_reference(tiny_store, int8.name, JETSON, research_override=True)
    return engines_of(tiny_store, tiny_store.resolve("latest", "model"))["tensorrt:float16"]


def test_each_engine_has_the_threshold_of_its_own_evaluation(
    tiny_store: Store, int8: Artefact, float16: Artefact
) -> None:
    path, facts = workflow.bundle_reference(tiny_store, int8.name, JETSON, research_override=True)
    assert (facts.engine, facts.alternative) == ("tensorrt:int8", "tensorrt:float16")
    bundle = read_bundle(path, (path / "bundle.json").read_text())
    assert bundle.alternative is not None
    for part, engine in ((bundle, int8), (bundle.alternative, float16)):
        evaluation = find_evaluation(tiny_store, engine)
        assert evaluation is not None
        assert part.point is not None
        assert part.point.threshold == read_operating_point(evaluation).threshold
        assert part.has_input_checks
        assert [output.name for output in _outputs(part.engine)] == [
            "probabilities",
            "features",
            "logits",
        ]
    full = tiny_store.parent(float16, "source")
    with np.load(path / "golden.npz") as golden, open_engine(engine_file(full)) as parent:
        expected = parent.predict(golden["images"])
        np.testing.assert_array_equal(golden["float16_probabilities"], expected)


def _outputs(path: object) -> list[object]:
    import onnx

    return list(onnx.load(path).graph.output)


def test_float16_that_fails_its_gate_is_left_out(
    tiny_store: Store,
    int8: Artefact,
    float16: Artefact,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gate = "size_mb <= 0.1"
    failed = GateVerdict(
        "tensorrt:float16", gate, "size_mb", Comparand.DEVICE, Outcome.FAILED, 0.1, measured=0.2
    )
    parents = {"alternative": float16, "alternative_benchmark": int8}
    monkeypatch.setattr(stage, "read_verdicts_on", lambda benchmark, engine: (failed,))
    config = stage.BundleConfig(target=JETSON)
    found = stage.make_alternative(parents, config)
    assert found == f"the other was left out, tensorrt:float16: `{gate}` failed: the figure is 0.2"


def test_a_network_beyond_float16_has_one_engine(
    tiny_store: Store, int8: Artefact, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(store: Store, model: Artefact, targets: list[str], **options: object) -> object:
        refused = options["refused"]
        assert isinstance(refused, dict)
        refused[targets[0]] = DataError("constant w reaches 7e+04; float16's limit is 65504.")
        return {}

    monkeypatch.setattr(workflow, "convert_model", refuse)
    path, facts = workflow.bundle_reference(tiny_store, int8.name, JETSON, research_override=True)
    assert facts.alternative is None
    assert facts.no_alternative == (
        "tensorrt:float16 is not possible, constant w reaches 7e+04; float16's limit is 65504"
    )
    assert facts.no_alternative in (path / "README.md").read_text()
    assert json.loads((path / "bundle.json").read_text())["alternative"] is None


def test_a_board_has_no_choice(tiny_store: Store, int8: Artefact) -> None:
    assert workflow.list_alternative(tiny_store, int8, "linux-arm64") == ({}, "")
