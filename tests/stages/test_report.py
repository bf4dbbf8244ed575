"""The stage finds what the report needs in the artefacts of a run."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from lesiontk.bench.benchmark import Benchmark
from lesiontk.bench.measure import LatencySamples
from lesiontk.explain.explanation import DOCUMENT
from lesiontk.recipe import read_recipe
from lesiontk.records import Artefact, EngineFootprint, Footprint, ModelFacts
from lesiontk.report.formatting import format_latency
from lesiontk.stage import Context, StepId
from lesiontk.stages.cluster import Clustering
from lesiontk.stages.equalize import Equalization
from lesiontk.stages.prune import Pruning
from lesiontk.stages.report import FILE, ReportConfig, ReportStage
from tests.artefacts import change_manifest, make_artefact
from tests.model_facts import make_facts
from tests.report.page import Page
from tests.report.sample_explanation import make_explanation
from tests.report.sample_report import GROUPS, SEVEN, make_report_data

TARGETS = ("keras:float32", "tflite:float32", "tflite:int8")


def make_recipe(*overrides: str) -> dict[str, Any]:
    """Return the document of a recipe as manifests hold it."""
    return read_recipe("demo", overrides).model_dump(mode="json")


def write_artefact(
    folder: Path,
    kind: str,
    key: str,
    facts: Any,
    files: dict[str, str],
    **manifest: Any,
) -> Artefact:
    """Write an artefact as the store would have."""
    path = folder / f"{kind}-{key * 12}"
    path.mkdir()
    for name, text in files.items():
        (path / name).write_text(text)
    written = {
        "recipe": make_recipe("train.seed=5"),
        "tools": {"numpy": "2.4.6"},
        "environment": {"lesiontk": "0.1.0", "python": "3.11.7"},
        "seconds": 33.0,
        **manifest,
    }
    return make_artefact(path, kind, facts, files, key=key, **written)


@pytest.fixture
def parents(tmp_path: Path) -> dict[str, Artefact]:
    data = make_report_data(targets=TARGETS, noise=0.8)
    table = ["image_id,lesion_id,group,diagnosis,label,subset,location,pixel_sha256"]
    table += [
        f"ISIC_{row:07d},{f'HAM_{row // 2:07d}' if row else ''},g,mel,mel,test,{row}.jpg,{row}"
        for row in range(160)
    ]
    found = {
        "benchmark": write_artefact(
            tmp_path, "benchmark", "a", {},
            {
                "benchmark.json": json.dumps(data.benchmark.to_document()),
                "latency_samples.json": json.dumps(LatencySamples({}).to_document()),
            },
            recipe=make_recipe("train.seed=9", "gate=[balanced_accuracy >= parent - 0.125 @ 0.95]"),
            tools={"NumPy": "2.5.0"},
            schema_version=Benchmark.SCHEMA,
        ),
        "model": write_artefact(
            tmp_path, "model", "b", data.model.to_document(),
            {"curves.csv": "epoch,loss\n1,0.5\n2,0.25\n"},
            parents={"images": {"name": "images-cccccccccccc", "key": "c" * 64,
                                "content": "c" * 64}},
            schema_version=ModelFacts.SCHEMA,
        ),
        "images": write_artefact(tmp_path, "images", "c", {}, {"images.csv": "\n".join(table)}),
    }  # fmt: skip
    for number, target in enumerate(TARGETS):
        lines = ["image_id,group,label," + ",".join(f"p_{label}" for label in SEVEN)]
        for row, confidence in enumerate(data.confidences[target]):
            rest = ",".join(["0"] * 6)
            lines.append(f"ISIC_{row:07d},{GROUPS[row]},mel,{confidence},{rest}")
        files = {
            "metrics.json": json.dumps(data.metrics[target].to_document()),
            "predictions.csv": "\n".join(lines),
        }
        facts = data.engines[target].to_document()
        found[StepId("engine", target)] = write_artefact(tmp_path, "engine", str(number), facts, {})
        found[StepId("evaluation", target)] = write_artefact(
            tmp_path, "evaluation", str(number), {}, files
        )
    return found


def report(parents: dict[str, Artefact], folder: Path) -> Page:
    config = ReportConfig(name="this", description="A run.")
    output = ReportStage().run(parents, config, Context(folder, folder))
    assert output.facts["file"] == FILE
    return Page((folder / FILE).read_text(encoding="utf-8"))


def test_changed_images_get_their_names_lesions_and_confidences(
    parents: dict[str, Artefact], tmp_path: Path
) -> None:
    shown = report(parents, tmp_path).tables["Images to which tflite:int8 gives another class"]
    assert all(row[0].startswith("ISIC_") for row in shown[1:])
    numbers = {row[0].removeprefix("ISIC_"): row[1] for row in shown[1:]}
    assert all(
        lesion == f"HAM_{int(number) // 2:07d}" for number, lesion in numbers.items() if int(number)
    )
    assert all("%" in row[3] and "%" in row[4] for row in shown[1:])


def test_the_recipe_is_the_models_and_after_training_the_benchmarks(
    parents: dict[str, Artefact], tmp_path: Path
) -> None:
    page = report(parents, tmp_path)
    assert "seed: 5" in page.text
    assert "seed: 9" not in page.text
    assert "balanced_accuracy >= parent - 0.125 @ 0.95" in page.text


def test_versions_and_lineage_are_of_all_artefacts(
    parents: dict[str, Artefact], tmp_path: Path
) -> None:
    page = report(parents, tmp_path)
    assert "numpy 2.4.6 and 2.5.0" in page.text
    table = page.tables["Artefacts this report was made from"]
    assert [row[0] for row in table[1:]] == [
        "images",
        "model",
        *(f"engine:{target}" for target in TARGETS),
        *(f"evaluation:{target}" for target in TARGETS),
        "benchmark",
    ]
    assert table[2][1:] == ["model-bbbbbbbbbbbb", "b" * 12, "images-cccccccccccc"]


def test_the_heatmaps_of_an_explanation_are_put_into_the_page(
    parents: dict[str, Artefact], tmp_path: Path
) -> None:
    explanation, heatmaps = make_explanation()
    files = {DOCUMENT: json.dumps(explanation.to_document()), **{name: name for name in heatmaps}}
    explained = write_artefact(tmp_path, "explanation", "e", {}, files)
    without = report(parents, tmp_path)
    page = report({**parents, "explanation": explained}, tmp_path)
    shown = [source for source in page.values("src") if source.startswith("data:image/jpeg;base64")]
    assert [base64.b64decode(s.partition(",")[2]).decode() for s in shown] == list(heatmaps)
    assert not [source for source in without.values("src") if "jpeg" in source]
    roles = [row[0] for row in page.tables["Artefacts this report was made from"][1:]]
    assert roles[-2:] == ["explanation", "benchmark"]


def make_model(model: Artefact, facts: ModelFacts) -> Artefact:
    """Return a model as the step of a compression would have left it."""
    return change_manifest(model, facts=facts.to_document())


def test_steps_come_in_their_order_each_with_what_was_measured_of_it(
    parents: dict[str, Artefact], tmp_path: Path
) -> None:
    """Eleven before the last, whose roles would not sort as words."""
    model = parents["model"]
    line = {StepId("ancestor", "0", "train"): model}
    for number in range(1, 11):
        engine = EngineFootprint(1000, 500, float(number))
        footprint = Footprint("tflite:float32", 9, engine, engine)
        line[StepId("ancestor", str(number), "cluster")] = make_model(
            model, make_facts("cluster", Clustering(2), footprint=footprint)
        )
    last = make_model(model, make_facts("equalize", Equalization(3, 0.0)))
    page = report({**dict(reversed(line.items())), **parents, "model": last}, tmp_path)
    steps = [row[0] for row in page.tables["Steps of the compression"][1:]]
    assert steps == ["train", *["cluster"] * 10, "equalize"]
    effects = page.tables["Sizes and latencies before and after"][1:]
    assert [row[-1] for row in effects] == [format_latency(n) for n in range(1, 11)]
    shown = [row[0] for row in page.tables["Artefacts this report was made from"]]
    assert set(line) < set(shown)


def test_widths_are_those_of_the_last_pruning_whatever_followed(
    parents: dict[str, Artefact], tmp_path: Path
) -> None:
    pruning = Pruning(criterion="l1", multiple=1, macs=(2, 1), parameters=(2, 1), rounds=())
    facts = make_facts("prune", pruning).to_document()
    line = {}
    for number, kept in enumerate((6, 4), start=1):
        files = {"widths.csv": f"layer,kind,channels,kept,macs,macs_kept\na,Conv2D,8,{kept},2,1\n"}
        line[StepId("ancestor", str(number), "prune")] = write_artefact(
            tmp_path, "model", str(number), facts, files, schema_version=ModelFacts.SCHEMA
        )
    last = make_model(parents["model"], make_facts("equalize", Equalization(3, 0.0)))
    page = report({**parents, **line, "model": last}, tmp_path)
    assert any("50% of 8 channels remain" in text for text in page.values("alt"))


def test_a_model_without_curves_and_unknown_images_still_make_a_report(
    parents: dict[str, Artefact], tmp_path: Path
) -> None:
    model = parents["model"]
    bare = change_manifest(model, files={})
    page = report(
        {role: a for role, a in {**parents, "model": bare}.items() if role != "images"}, tmp_path
    )
    assert "This model has no training curves." in page.text
    shown = page.tables["Images to which tflite:int8 gives another class"]
    assert {row[1] for row in shown[1:]} == {"–"}
