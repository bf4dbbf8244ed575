"""What reaches a store from a whole chain: figures and hashes, no image, identifier or path."""

from __future__ import annotations

import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

import pytest

from lesiontk.backends.engine_facts import EngineFacts
from lesiontk.data.images import open_images
from lesiontk.records import Artefact, ModelFacts
from lesiontk.stages.bench import read_benchmark
from lesiontk.store import Store
from lesiontk.tracking.mlflow_tracker import name_of
from lesiontk.workflow.benchmark import benchmark_model
from lesiontk.workflow.convert import convert_model
from lesiontk.workflow.tracking import Tracking
from lesiontk.workflow.train import train_recipe
from tests.tiny.recipe import tiny_recipe
from tests.tracking.conftest import Place
from tests.tracking.database import dump

LENIENT = (
    "verify.min_agreement_int8=0", "verify.max_mean_drift_int8=1", "calibration.images=21",
    "evaluate.resamples=100", "bench.rounds=20",
)  # fmt: skip
GATES = ("gate=[macro_auc >= parent - 0.5 @ 0.95, p90_ms <= 0.0001]",)


def run_chain(store: Store) -> dict[str, Artefact]:
    model = train_recipe(store, tiny_recipe())
    engines = convert_model(store, model, ["tflite:int8"], LENIENT)
    benchmark = benchmark_model(store, model, overrides=[*LENIENT, *GATES])
    return {"model": model, "engine": engines["tflite:int8"], "benchmark": benchmark}


@pytest.fixture(scope="module")
def chain(tiny_store: Store) -> dict[str, Artefact]:
    return run_chain(tiny_store)


@pytest.fixture
def tracked(place: Place, chain: dict[str, Artefact], tiny_store: Store) -> Place:
    """The place of a chain that was made without a tracker."""
    observer = Tracking("mlflow", place.workspace)
    observer.connect()
    for artefact in tiny_store.list_artefacts():
        observer.end(artefact)
    assert observer.missing == ()
    return place


def test_each_artefact_has_a_run_with_its_figures_and_hashes(
    tracked: Place, chain: dict[str, Artefact], tiny_store: Store
) -> None:
    """Once, although the chain is run again with a tracker of its own."""
    again = Store(tiny_store.workspace, observer=Tracking("mlflow", tracked.workspace))
    assert run_chain(again) == chain
    for name, artefact in chain.items():
        (run,) = tracked.runs(key=artefact.key)
        tags = {key.removeprefix("lesiontk."): text for key, text in run.data.tags.items()}
        assert run.info.status == "FINISHED"
        assert (tags["kind"], tags["artefact"], tags["content"]) == (
            name, artefact.name, artefact.content,
        )  # fmt: skip
        for file, entry in artefact.manifest.files.items():
            assert tags[f"file.{file}"] == entry.sha256
        for role, parent in artefact.manifest.parents.items():
            assert tags[name_of(f"parent.{role}")].split() == [parent.name, parent.content]
    assert len(tracked.runs(kind="benchmark")) == 1


def test_a_model_has_its_epochs_and_validation_scores(
    tracked: Place, chain: dict[str, Artefact]
) -> None:
    facts = chain["model"].read_facts(ModelFacts)
    (run,) = tracked.runs(key=chain["model"].key)
    assert run.data.params["train.epochs"] == str(facts.epochs)
    assert run.data.params["model.weights"] == "weights.npz"
    for name, value in facts.validation.metrics.items():
        assert run.data.metrics[name_of(f"model/{name}")] == value
    epochs = tracked.history(run, "validation/balanced_accuracy")
    assert [epoch for epoch, _ in epochs] == list(range(1, facts.epochs + 1))
    assert max(value for _, value in epochs) == pytest.approx(facts.validation.balanced_accuracy)


def test_an_engine_has_its_size_and_verification(
    tracked: Place, chain: dict[str, Artefact]
) -> None:
    facts = chain["engine"].read_facts(EngineFacts)
    (run,) = tracked.runs(key=chain["engine"].key)
    assert run.data.params["target"] == "tflite:int8"
    assert run.data.metrics["engine/size_bytes"] == facts.size_bytes
    assert run.data.metrics["verification/passed"] == 1
    for check in facts.verification.checks:
        assert name_of(f"verification/{check.name}") in run.data.metrics


def test_a_benchmark_has_accuracy_with_intervals_latency_and_verdicts(
    tracked: Place, chain: dict[str, Artefact]
) -> None:
    benchmark = read_benchmark(chain["benchmark"])
    (run,) = tracked.runs(key=chain["benchmark"].key)
    for row in benchmark.rows:
        accuracy = row.metrics["balanced_accuracy"]
        logged = [run.data.metrics[f"{row.key}/balanced_accuracy{end}"] for end in ("", ".low")]
        assert logged == [accuracy.value, accuracy.low]
        assert run.data.metrics[f"{row.key}/median_ms"] == row.latency.median
        assert run.data.metrics[f"{row.key}/test_lesions"] == row.lesions
    verdicts = {v for k, v in run.data.tags.items() if k.startswith("lesiontk.gate.")}
    assert "tflite:int8: p90_ms <= 0.0001: failed" in verdicts
    assert len(verdicts) == len(benchmark.gate)


def test_no_image_identifier_and_path_reaches_a_store(
    tracked: Place, chain: dict[str, Artefact], tiny_store: Store
) -> None:
    """Every text in the database is read, and every file beside it."""
    database = tracked.database
    text = dump(database)
    assert chain["model"].content in text  # it is the whole of it
    (prepared,) = tiny_store.list_artefacts("images")
    images = open_images(prepared)
    for secret in {*images.image_ids, *images.groups, *images.hashes}:
        assert secret not in text, secret
    for path in (tiny_store.workspace, Path.home(), Path(tempfile.gettempdir()), Path.cwd()):
        assert str(path) not in text, path
    files = [path for path in database.parent.rglob("*") if path.is_file()]
    assert {path.name for path in files if not path.name.startswith("mlflow.db")} == set()


def test_a_secret_would_be_found(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "x.db")) as connection, connection:
        connection.execute("CREATE TABLE tags (key, value, artifact_uri)")
        connection.execute("INSERT INTO tags VALUES ('a', 'ISIC_0024306', '/tmp')")
    assert "ISIC_0024306" in dump(tmp_path / "x.db")
    assert "/tmp" not in dump(tmp_path / "x.db")
