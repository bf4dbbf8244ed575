"""The published cross-validations stay together in one file and one page."""

from __future__ import annotations

import json
from pathlib import Path

from lesiontk.evaluate.cross_validation import CrossValidation
from lesiontk.report.result_table import format_estimate
from tests.evaluate.pooled import make_result
from tests.loose_modules import load_benchmark

publish = load_benchmark("cross_validation").publish


def test_a_recipe_joins_those_before_and_replaces_itself(tmp_path: Path) -> None:
    second = make_result("second")
    for result in (second, make_result("first", "An earlier run."), make_result("first")):
        publish(result, [], tmp_path)
    documents = json.loads((tmp_path / "cross_validation.json").read_text())
    assert list(documents) == ["first", "second"]
    assert CrossValidation.from_document(documents["first"]["result"]).description == "Drawn."
    assert CrossValidation.from_document(documents["second"]["result"]) == second


def test_the_page_has_pooled_values_differences_and_folds(tmp_path: Path) -> None:
    result = make_result()
    publish(result, ["train.epochs=10"], tmp_path)
    page = (tmp_path / "cross_validation.md").read_text()
    assert "The recipe with `train.epochs=10`: 3 folds" in page
    assert "--set train.epochs=10`." in page
    assert f"3 folds, n = {result.images} images of 120 lesions" in page
    for engine in result.engines:
        score = engine.metrics["balanced_accuracy"]
        row = f"| {engine.key} | {format_estimate(score.pooled)} | "
        assert row in page
        assert f"| {engine.key} | {format_estimate(score.procedure)} | " in page
        assert all(f"{value:.3f}" in page for value in score.folds)
    versus = result.engines[2].versus_parent
    assert versus is not None
    assert format_estimate(versus.differences["accuracy"].pooled, 4) in page


def test_it_is_among_the_studies() -> None:
    """Otherwise its file would be taken for a recipe's."""
    assert "cross_validation" in load_benchmark("tables").STUDIES
