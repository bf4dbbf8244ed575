"""The stage fits on training and validation images, and test images only show what it refuses."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lesiontk.api.workspace import Workspace
from lesiontk.backends import open_engine
from lesiontk.backends.reference_outputs import engine_file
from lesiontk.data.images import open_images
from lesiontk.errors import DataError, UsageError
from lesiontk.evaluate.input_checks import (
    ACCEPTED,
    ARRAYS,
    DOCUMENT,
    OUT_OF_DOMAIN,
    POOR_QUALITY,
    load_checks,
    score_domain,
)
from lesiontk.records import Artefact
from lesiontk.stage import Context
from lesiontk.stages.input_checks import (
    InputChecksConfig,
    fit_input_checks,
    read_input_checks,
)
from lesiontk.store import Store
from lesiontk.workflow import input_checks as workflow
from lesiontk.workflow.convert import convert_model
from lesiontk.workflow.predict import predict_pictures, predict_reference

CONFIG = InputChecksConfig(other_images=10, class_images=40)


@pytest.fixture(scope="module")
def engine(tiny_store: Store) -> Artefact:
    model = tiny_store.resolve("latest", "model")
    return convert_model(tiny_store, model, ["tflite:float32"])["tflite:float32"]


@pytest.fixture(scope="module")
def made(tiny_store: Store, engine: Artefact) -> Artefact:
    return workflow.fit_input_checks(tiny_store, engine, CONFIG)


def test_it_says_what_is_refused_of_whom(made: Artefact, engine: Artefact) -> None:
    facts = read_input_checks(made)
    assert facts.target == "tflite:float32"
    assert facts.false_refusals["out_of_domain"] <= CONFIG.domain_rate
    assert facts.score in {candidate.name for candidate in facts.candidates}
    assert sum(row.n for row in facts.classes) == facts.images["test"]
    assert {row.family for row in facts.families if not row.chosen_on} == {"photograph"}
    assert all(row.poor_quality + row.out_of_domain <= row.n for row in facts.families)


def test_the_files_score_as_the_stage_did(
    made: Artefact, tiny_store: Store, engine: Artefact
) -> None:
    checks = load_checks(made.path)
    images = open_images(tiny_store.parent(engine, "images"))
    rows = images.indices("validation")
    with open_engine(made.file(read_input_checks(made).file)) as opened:
        found = opened.predict_signals(np.asarray(images.pixels[rows]))
    scores = score_domain(checks.domain, found.probabilities, found.features, found.logits)
    refused = scores > checks.threshold
    assert refused.mean() == read_input_checks(made).false_refusals["out_of_domain"]


def test_test_images_change_nothing_but_what_is_reported(
    tiny_store: Store, engine: Artefact, tmp_path: Path
) -> None:
    images = open_images(tiny_store.parent(engine, "images"))
    pixels = np.array(images.pixels)
    pixels[images.indices("test")] = 255 - pixels[images.indices("test")]
    found = []
    for number, known in enumerate((images, replace(images, pixels=pixels))):
        folder = tmp_path / str(number)
        folder.mkdir()
        context = Context(folder, folder, threads=1)
        facts = fit_input_checks(engine_file(engine), "tflite:float32", known, CONFIG, context)
        found.append((facts, (folder / DOCUMENT).read_text(), (folder / ARRAYS).read_bytes()))
    assert found[0][1:] == found[1][1:]
    assert found[0][0].classes != found[1][0].classes


def test_the_checks_name_the_engine_they_belong_to(made: Artefact, engine: Artefact) -> None:
    document = json.loads(made.file(DOCUMENT).read_text())
    files = engine.manifest.files
    assert document["engine_sha256"] == files[engine.facts["file"]].sha256


def test_images_of_another_split_are_refused(
    tiny_store: Store, engine: Artefact, tmp_path: Path
) -> None:
    images = replace(open_images(tiny_store.parent(engine, "images")), split_hash="0" * 64)
    context = Context(tmp_path, tmp_path, threads=1)
    with pytest.raises(DataError, match="received images of the split 000000000000"):
        fit_input_checks(engine_file(engine), "tflite:float32", images, CONFIG, context)


def test_the_python_interface_returns_a_table(tiny_store: Store, made: Artefact) -> None:
    found = Workspace(tiny_store.workspace).engine("latest").fit_input_checks()
    table = found.to_pandas()
    assert list(table.columns) == ["label", "n", "poor_quality", "out_of_domain", "upper"]
    assert "validation images" in found.caption


def test_an_engine_file_has_no_images_to_fit_on(tiny_store: Store) -> None:
    file = Path(__file__).parents[2] / "benchmarks/engines/cnn_7class/tflite_int8.tflite"
    with pytest.raises(UsageError, match="outside the workspace"):
        Workspace(tiny_store.workspace).engine(file).fit_input_checks()


def test_predict_says_whether_a_picture_was_accepted(
    tiny_store: Store, engine: Artefact, made: Artefact
) -> None:
    images = open_images(tiny_store.parent(engine, "images"))
    known = np.asarray(images.pixels[images.indices("train")[0]])
    size = known.shape[0]
    black = np.zeros((size, size, 3), np.uint8)
    found = predict_reference(tiny_store, engine.name, [known, black, known[: size // 2]])
    plain = predict_pictures(engine_file(engine), [known, black])
    first, dark, small = found.predictions
    assert dark.input.status == POOR_QUALITY
    assert "the picture is too dark" in dark.input.reasons
    assert small.input.reasons[-1] == "the picture has too few pixels"
    assert first.input.status in (ACCEPTED, POOR_QUALITY, OUT_OF_DOMAIN)
    assert "input" not in plain.predictions[0].to_document()
    assert [p.probabilities for p in found.predictions[:2]] == [
        p.probabilities for p in plain.predictions
    ]
