"""The published search: its front beside the published engines, and a space that can be run."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from lesiontk.bench.timing import Latency
from lesiontk.recipe import read_recipe
from lesiontk.search.space import read_space
from tests.loose_modules import load_benchmark
from tests.report.sample_search import make_result

study = load_benchmark("search_study")
ROOT = Path(__file__).parents[2]


def make_timing(median_ms: float) -> object:
    latency = Latency(median=median_ms, p90=2 * median_ms, n=100)
    return type("Timing", (), {"latency": latency})()


@pytest.fixture
def written(tmp_path: Path) -> Path:
    result = make_result()
    front = {f"trial {number}": tmp_path / "engine" for number in result.front}
    (tmp_path / "engine").write_bytes(bytes(250_000))
    published = {"cnn_7class tflite:int8": study.ENGINES / "cnn_7class" / "tflite_int8.tflite"}
    timings = {name: make_timing(3.25) for name in (*front, *published)}
    rows = study.list_front_rows(result, front, timings)
    rows += study.list_published_rows(published, timings)
    study.write_study(result, rows, {"trial 3": ["busy"], "trial 4": []}, tmp_path)
    return tmp_path


def test_the_page_has_the_front_and_the_published_engine(written: Path) -> None:
    page = (written / "search_study.md").read_text()
    result = make_result()
    for number in result.front:
        chosen = result.figures(number).value("balanced_accuracy")
        (row,) = (line for line in page.splitlines() if line.startswith(f"| trial {number} |"))
        assert f"| {chosen:.3f} |" in row
        assert "| 3.25 | 6.5 | 0.25 |" in row
    (row,) = (line for line in page.splitlines() if line.startswith("| cnn_7class tflite:int8 |"))
    published = json.loads((study.RESULTS / "cnn_7class.json").read_text())
    known = published["replaced"]["tflite:int8"]["row"]
    assert f"| – | {known['metrics']['balanced_accuracy']['value']:.3f} [" in row
    assert f"| {known['n']} |" in row
    assert f"{result.candidates} engines were compared" in page
    assert "noisy for 1 engines" in page
    assert "<svg" in (written / "search_study.svg").read_text()[:500]


def test_an_engine_of_the_front_that_was_not_tested_is_an_error(tmp_path: Path) -> None:
    result = replace(make_result(), tests={})
    with pytest.raises(KeyError):
        study.list_front_rows(result, {f"trial {n}": tmp_path for n in result.front}, {})


def test_its_candidates_start_from_the_published_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    for recipe in read_space(study.SPACE).vary["recipe"]:
        imported = read_recipe(recipe).imported
        assert imported is not None
        assert Path(imported.file).is_file()


def test_it_is_among_the_studies() -> None:
    assert "search_study" in load_benchmark("tables").STUDIES
