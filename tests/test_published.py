"""The published files are consistent: engines, splits, calibration lists, results."""

from __future__ import annotations

import csv
import hashlib
import json
import shlex
import shutil
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from numpy.typing import NDArray

from lesiontk.backends import BACKENDS, find_backend, open_engine
from lesiontk.backends.stamp import stamp
from lesiontk.backends.tensorrt.check import check_model
from lesiontk.bench.benchmark import Benchmark, EngineRow
from lesiontk.calibration.draw import read_list, read_list_rows
from lesiontk.data.reader import ImageReader, decode_many
from lesiontk.data.similarity import hash_pixels
from lesiontk.data.sources import SOURCES
from lesiontk.data.synthetic.dataset import render_view
from lesiontk.evaluate.input_checks import load_checks
from lesiontk.evaluate.robustness import Robustness
from lesiontk.evaluate.verdict import GateVerdict, sort_verdicts
from lesiontk.progress import NoProgress
from lesiontk.recipe import EvaluateRule, list_recipes, parse_recipe, read_recipe
from lesiontk.stages.known_splits import find_split
from lesiontk.workflow.evaluate import evaluate_folder
from tests.loose_modules import load_benchmark

ROOT = Path(__file__).parents[1]
ENGINES = sorted(
    path for path in (ROOT / "benchmarks" / "engines").glob("*/*.*") if path.suffix != ".md"
)
CARDS = load_benchmark("published_card")
LARGE = 5_000_000
"""Bytes from which an engine takes seconds to open."""
RESULTS = [
    path
    for path in sorted((ROOT / "benchmarks" / "results").glob("*.json"))
    if path.stem in list_recipes()
]
SHARED = ROOT.parent / "shared" / "data" / "ham10000"


def describe(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"


def list_cases(suffix: str = "") -> list[Any]:
    """Return a case for every published engine whose name ends so; the large ones are slow."""
    return [
        pytest.param(
            path,
            id=describe(path),
            marks=pytest.mark.slow if path.stat().st_size > LARGE else (),
        )
        for path in ENGINES
        if path.name.endswith(suffix)
    ]


def test_something_is_published() -> None:
    assert ENGINES
    assert RESULTS


@pytest.mark.parametrize("path", list_cases())
def test_an_engine_predicts_from_its_file_alone(path: Path) -> None:
    with open_engine(path) as engine:
        size = engine.spec.preprocessing.image_size
        views = np.stack([render_view(name, 1, 0, size) for name in ("mel", "nv", "vasc")])
        probabilities = engine.predict(views)
    named = path.stem.replace("_half", "_float32")  # the weights alone are rounded
    assert f"{engine.spec.backend}_{engine.spec.precision}" == named
    assert engine.spec.recipe == path.parent.name
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0, atol=1e-4)
    assert np.ptp(probabilities, axis=0).max() > 0.01


@pytest.mark.parametrize("path", [case for case in list_cases() if "_int8" in str(case.id)])
def test_no_bias_of_a_published_engine_was_cut_off(path: Path) -> None:
    backend = BACKENDS.get(path.stem.partition("_")[0])()
    assert backend.inspect(path).saturated_biases == {}


@pytest.mark.parametrize("path", list_cases("tensorrt_int8.onnx"))
def test_tensorrt_takes_a_published_graph(path: Path) -> None:
    report = check_model(path)
    assert report.findings == ()
    if not report.parser:
        pytest.skip("no TensorRT is installed; the rules and the operator tables were checked")
    assert report.parser.startswith("tensorrt")


@pytest.mark.parametrize("path", list_cases())
def test_the_split_of_an_engine_is_shipped(path: Path) -> None:
    with open_engine(path) as engine:
        subsets = find_split(engine.spec.split_hash, [])
    assert subsets is not None
    assert set(subsets.images.values()) == {"train", "validation", "test"}
    assert path.parent.name in list_recipes()


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_calibration_images_are_training_images(path: Path) -> None:
    document = json.loads(path.read_text())
    subsets = find_split(document["split"]["split_hash"], [])
    assert subsets is not None
    listed = read_list(path.stem)
    assert len(listed) == len(set(listed)) >= 100
    assert {subsets.images[image] for image in listed} == {"train"}


@pytest.mark.shared
def test_the_hashes_of_calibration_images_are_those_of_their_pixels() -> None:
    if not SHARED.is_dir():
        pytest.skip("needs the real HAM10000 beside the checkout")
    listed = {
        (row["image_id"], row["pixel_sha256"])
        for path in RESULTS
        for row in read_list_rows(path.stem)
    }
    ids = {image_id for image_id, _ in listed}
    records = [r for r in SOURCES.get("ham10000")().read(SHARED).records if r.image_id in ids]
    with ImageReader(SHARED) as reader:
        found = {
            (records[index].image_id, str(digest))
            for index, digest in decode_many(reader, records, workers=2, transform=_hash)
        }
    assert listed == found


def _hash(image: NDArray[np.uint8]) -> NDArray[np.str_]:
    return np.array(hash_pixels(image))


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_a_model_card_states_the_published_figures(path: Path) -> None:
    document = json.loads(path.read_text())
    card = (ROOT / "benchmarks" / "engines" / path.stem / "README.md").read_text()
    replaced = document.get("replaced", {})
    for target, row in Benchmark.from_document(document["benchmark"]).by_target.items():
        taken = replaced.get(target)
        shown = EngineRow.from_document(taken["row"]) if taken else row
        assert f"{shown.metrics['balanced_accuracy'].value:.3f}" in card
    assert "not a medical device" in card
    assert document["split"]["split_hash"] in card


def test_a_model_card_says_what_corruptions_cost() -> None:
    found = json.loads((ROOT / "benchmarks" / "results" / "robustness.json").read_text())
    assert found
    for recipe, document in found.items():
        card = (ROOT / "benchmarks" / "engines" / recipe / "README.md").read_text()
        assert CARDS.update_corrupted_section(card, Robustness.from_document(document)) == card


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_a_published_command_trains_what_was_trained(path: Path) -> None:
    document = json.loads(path.read_text())
    _, run, name, _, _, *rest = shlex.split(document["command"])
    changes = [f"model.weights={after}" for flag, after in pairwise(rest) if flag == "--weights"]
    changes += [after for flag, after in pairwise(rest) if flag == "--set"]
    repeated, trained = read_recipe(name, changes), parse_recipe(document["recipe"])
    assert run == "run"
    assert repeated.data.model_copy(update={"path": None, "source": trained.data.source}) == (
        trained.data
    )
    assert (repeated.model, repeated.train) == (trained.model, trained.train)
    assert repeated.compress == trained.compress


def test_no_path_of_a_machine_is_published() -> None:
    for path in RESULTS:
        assert json.loads(path.read_text())["recipe"]["data"]["path"] is None
    for path in (ROOT / "benchmarks" / "results").glob("*.json"):
        assert str(ROOT) not in path.read_text()


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_every_published_engine_is_judged_and_none_failed(path: Path) -> None:
    document = json.loads(path.read_text())
    verdicts = Benchmark.from_document(document["benchmark"]).verdicts
    card = (ROOT / "benchmarks" / "engines" / path.stem / "README.md").read_text()
    reduced = {describe_target(file) for file in ENGINES if file.parent.name == path.stem}
    ours = {target for target in reduced if not target.startswith("keras:")}
    assert {verdict.engine for verdict in verdicts} >= ours
    assert [verdict.describe() for verdict in verdicts if verdict.failed] == []
    for verdict in verdicts:
        (row,) = (
            line for line in card.splitlines()
            if line.startswith(f"| `{verdict.gate}` | {verdict.engine} |")
        )  # fmt: skip
        assert verdict.outcome.words in row
    for target, entry in document.get("replaced", {}).items():
        own = sort_verdicts(GateVerdict.from_document(verdict) for verdict in entry["gate"])
        assert own == tuple(v for v in verdicts if v.engine == target)


def describe_target(path: Path) -> str:
    backend, _, precision = path.stem.partition("_")
    return f"{backend}:{precision}"


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_a_card_describes_the_engines_that_replace_others(path: Path) -> None:
    document, folder = json.loads(path.read_text()), ROOT / "benchmarks" / "engines" / path.stem
    card = (folder / "README.md").read_text()
    if replaced := CARDS.read_replaced(document):
        assert CARDS.update_compressed_section(card, replaced) == card
    for engine in replaced.values():
        path = folder / engine.file
        content, _ = find_backend(path)().split_record(path.read_bytes())
        assert len(content) == engine.row.size_bytes


# ------------------------------------------------------ cards and their files

FOLDERS = sorted(path for path in (ROOT / "benchmarks" / "engines").iterdir() if path.is_dir())


def are_stamped(folder: Path) -> bool:
    """Whether the file of any engine in the folder contains its evaluation."""
    files = CARDS.list_engine_files(folder)
    return any(find_backend(path)().read_assessment(path) is not None for path in files)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: str(folder.name))
def test_a_card_agrees_with_the_files_beside_it(folder: Path) -> None:
    if not are_stamped(folder):
        pytest.skip(f"python benchmarks/restamp.py {folder.name} has not been run yet")
    card = (folder / "README.md").read_text()
    assert CARDS.update_files_section(card, folder) == card
    published = json.loads((ROOT / "benchmarks/results" / f"{folder.name}.json").read_text())
    assert CARDS.drop_rows(card, published.get("replaced", {})) == card
    restamp = load_benchmark("restamp")
    for path, known in restamp.find_assessments(folder, published).items():
        recorded = find_backend(path)().read_assessment(path)
        assert (recorded and replace(recorded, content="")) == known


@pytest.fixture(scope="module")
def restamped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A published folder in which one engine is a smaller network's, stamped anew."""
    folder = tmp_path_factory.mktemp("restamped") / "efficientnet_lite0_7class"
    shutil.copytree(ROOT / "benchmarks" / "engines" / folder.name, folder)
    restamp = load_benchmark("restamp")
    restamp.restamp(folder, read_results(folder.name))
    return folder


def read_results(name: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((ROOT / f"benchmarks/results/{name}.json").read_text())
    return document


def test_each_threshold_on_a_card_is_that_of_the_file(restamped: Path) -> None:
    card, published = (restamped / "README.md").read_text(), read_results(restamped.name)
    assert are_stamped(restamped)
    assert CARDS.update_files_section(card, restamped) == card
    for path in CARDS.list_engine_files(restamped):
        (row,) = (line for line in card.splitlines() if line.startswith(f"| `{path.name}` |"))
        assert f"`{hashlib.sha256(path.read_bytes()).hexdigest()}`" in row
        known = find_backend(path)().read_assessment(path)
        if known is not None and known.operating_point is not None:
            assert f" {known.operating_point.threshold:.4f} " in row
    for target, entry in published["replaced"].items():
        whole = Benchmark.from_document(published["benchmark"]).by_target[target]
        for row, there in ((EngineRow.from_document(entry["row"]), True), (whole, False)):
            threshold = f"{row.point.threshold:.4f}"
            assert (threshold in card) is there
    restamp = load_benchmark("restamp")
    restamp.renew_card(restamped, published)
    assert (restamped / "README.md").read_text() == card
    assert CARDS.update_compressed_section(card, CARDS.read_replaced(published)) == card


@pytest.mark.parametrize("damage", ["threshold", "file", "figures"])
def test_a_card_that_differs_from_its_files_is_found(
    damage: str, restamped: Path, tmp_path: Path
) -> None:
    folder = tmp_path / restamped.name
    shutil.copytree(restamped, folder)
    card, path = (folder / "README.md").read_text(), folder / "tflite_int8.tflite"
    known = find_backend(path)().read_assessment(path)
    assert known is not None
    assert known.operating_point is not None
    assert known.test is not None
    if damage == "threshold":
        card = card.replace(f"{known.operating_point.threshold:.4f}", "0.1568")
    elif damage == "file":
        stamp(path, known.with_threshold(0.5, known.operating_point.positive), path)
    else:
        card = card.replace(str(known.test.metrics["balanced_accuracy"].value)[:5], "0.999")
    assert CARDS.update_files_section(card, folder) != card


def test_figures_are_not_written_into_another_file(restamped: Path) -> None:
    published = read_results(restamped.name)
    (replaced,) = published["replaced"].values()
    replaced["row"]["size_bytes"] += 1
    restamp = load_benchmark("restamp")
    with pytest.raises(click.ClickException, match="publish it together with its own"):
        restamp.restamp(restamped, published)


def test_a_published_split_keeps_lesions_whole() -> None:
    if not SHARED.is_dir():
        pytest.skip("needs the real HAM10000 beside the checkout")
    with (SHARED / "HAM10000_metadata.csv").open(newline="") as stream:
        lesions = {row["image_id"]: row["lesion_id"] for row in csv.DictReader(stream)}
    for path in RESULTS:
        subsets = find_split(json.loads(path.read_text())["split"]["split_hash"], [])
        assert subsets is not None
        assert len({(lesions[i], subset) for i, subset in subsets.images.items()}) == len(
            set(lesions.values())
        )


@pytest.mark.shared
def test_the_published_figures_come_out_again() -> None:
    if not SHARED.is_dir():
        pytest.skip("needs the real HAM10000 beside the checkout")
    path = ROOT / "benchmarks" / "engines" / "cnn_7class" / "tflite_int8.tflite"
    rule = EvaluateRule(resamples=100)
    found = evaluate_folder(path, SHARED, None, rule, NoProgress())
    published = json.loads((ROOT / "benchmarks" / "results" / "cnn_7class.json").read_text())
    tables = load_benchmark("tables")
    row = tables.find_row(published, "tflite:int8")
    assert found.n == row.n
    assert found.seen_images.keys() == {"train", "validation"}
    for name in ("balanced_accuracy", "macro_auc"):
        assert found.metrics[name].value == pytest.approx(
            row.metrics[name].value, abs=0.01  # another CPU's int8 kernels may round apart
        )  # fmt: skip


def test_the_page_of_all_results_is_what_the_results_say() -> None:
    tables = load_benchmark("tables")
    published = {path.stem: json.loads(path.read_text()) for path in RESULTS}
    front = {name: published[name] for name in tables.FRONT}
    assert tables.summarize(front, "benchmarks/engines") in (ROOT / "README.md").read_text()
    page = (ROOT / "benchmarks" / "results" / "README.md").read_text()
    assert page == tables.render(published, tables.list_studies(), tables.read_sensitivities())


def test_the_table_of_compressed_networks_is_what_the_figures_say() -> None:
    file = ROOT / "benchmarks" / "results" / "compression.json"
    if not file.is_file():
        pytest.skip("no compressed network is published yet")
    module = load_benchmark("compression")
    rows = json.loads(file.read_text())
    assert file.with_suffix(".md").read_text() == module.render(rows)
    splits = {json.loads(path.read_text())["benchmark"]["split_hash"] for path in RESULTS}
    assert {row["split_hash"] for row in rows} == splits


def test_the_page_of_pruning_curves_is_what_the_figures_say() -> None:
    file = ROOT / "benchmarks" / "results" / "pruning_curves.json"
    module = load_benchmark("pruning_curves")
    curves = json.loads(file.read_text())
    assert file.with_suffix(".md").read_text() == module.render(curves)
    for curve in curves:
        told = {(point["way"], point["asked"]) for point in curve["points"]}
        assert told == {(way, share) for way in module.WAYS for share in module.LEVELS}


def test_all_rows_are_of_one_split() -> None:
    hashes = {json.loads(path.read_text())["benchmark"]["split_hash"] for path in RESULTS}
    assert len(hashes) == 1


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_published_input_checks_belong_to_the_engine_beside_them(folder: Path) -> None:
    checks = load_checks(folder / "input_checks")
    engine = folder / "tflite_int8.tflite"
    content, _ = find_backend(engine)().split_record(engine.read_bytes())
    assert checks.engine_sha256 == hashlib.sha256(content).hexdigest()
    rows = json.loads((ROOT / "benchmarks/results/input_checks.json").read_text())[folder.name]
    assert checks.threshold == rows["threshold"]
    assert checks.quality == rows["quality"]
    assert rows["false_refusals"]["out_of_domain"] <= 0.02
