"""The page of a cross-validation needs nothing else, says everything, and trusts no text."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from lesiontk.report.cross_validation import (
    DIFFERENCE_COLUMNS,
    ENGINE_COLUMNS,
    choose_headline,
    fold_columns,
    list_compared,
    list_difference_cells,
    list_engine_cells,
    list_fold_cells,
    render_page,
    summarize,
    write_page,
)
from tests.evaluate.pooled import make_result
from tests.report.page import Page

RESULT = make_result()


@pytest.fixture(scope="module")
def page() -> Page:
    return Page(render_page(RESULT))


def test_nothing_is_loaded_from_elsewhere(page: Page) -> None:
    assert all(source.startswith("data:image/svg+xml;base64,") for source in page.values("src"))
    assert len(page.values("src")) == 1
    ids = set(page.values("id"))
    assert {target.removeprefix("#") for target in page.values("href")} <= ids
    assert not {"script", "link", "iframe"} & {tag for tag, _ in page.tags}


def test_it_says_what_was_tested_and_how_much_it_varies(page: Page) -> None:
    score = RESULT.by_engine[choose_headline(RESULT).key].metrics["balanced_accuracy"]
    assert choose_headline(RESULT).target == "tflite:int8"
    assert score.pooled.value is not None
    assert f"{100 * score.pooled.value:.1f}" in page.text
    for value in score.folds:
        assert value is not None
        assert f"{100 * value:.1f}" in page.text
    assert f"{RESULT.images} images of 120 lesions, each tested exactly once" in page.text
    assert "The images were drawn by a program." in page.text
    assert "Forman and Scholz 2010" in page.text
    assert "Nadeau and Bengio 2003" in page.text
    assert len(summarize(RESULT)) == 3
    assert "points against tflite:float32" in page.text


def test_a_table_has_every_engine_fold_and_class(page: Page) -> None:
    tables = page.tables
    assert [row[0] for row in tables["Engines over all folds"][1:]] == list(RESULT.by_engine)
    parts = tables["Parts of the folds and balanced accuracy in each"]
    assert [row[0] for row in parts[1:]] == ["1", "2", "3"]
    assert all(len(row) == 6 + len(RESULT.engines) for row in parts)
    recalls = tables["Recall of each class over all folds"]
    assert [row[0].split()[0] for row in recalls[1:]] == ["mel", "bcc", "nv"]
    changes = tables["tflite:int8 against tflite:float32"]
    assert all(len(row) == 4 + len(RESULT.folds) for row in changes)
    versus = RESULT.engines[2].versus_parent
    assert versus is not None
    assert len(changes) == 1 + len(versus.differences)


def test_without_engines_of_reduced_precision_nothing_is_compared() -> None:
    alone = replace(RESULT, engines=RESULT.engines[:1])
    page = Page(render_page(alone))
    assert "#compression" not in page.values("href")
    assert not list_difference_cells(alone)
    assert choose_headline(alone).target == "keras:float32"
    assert len(summarize(alone)) == 2


def test_a_compressed_network_is_compared_with_the_trained_one() -> None:
    """In full precision, too; the trained network's own engines are not."""
    keras, whole, small = RESULT.engines
    assert whole.versus_parent is not None
    compressed = replace(whole, versus_parent=replace(whole.versus_parent, reference=True))
    trained = replace(compressed, reference=True)
    found = replace(RESULT, engines=(keras, trained, compressed, small))
    assert list_compared(found) == (compressed, small)
    assert list_compared(RESULT) == (small,)
    assert choose_headline(found) == small


def test_text_is_escaped() -> None:
    html = render_page(replace(RESULT, recipe="a<b", description="<script>x</script>"))
    assert "<script>" not in html
    assert "a&lt;b" in html
    assert not re.search(r"https?:|@import|url\(", html)


def test_equal_results_give_equal_bytes(tmp_path: Path) -> None:
    write_page(RESULT, tmp_path / "one.html")
    write_page(make_result(), tmp_path / "two.html")
    assert (tmp_path / "one.html").read_bytes() == (tmp_path / "two.html").read_bytes()


def test_the_tables_of_the_terminal_fit_their_columns() -> None:
    assert all(len(row) == len(ENGINE_COLUMNS) for row in list_engine_cells(RESULT))
    differences = list_difference_cells(RESULT)
    assert all(len(row) == len(DIFFERENCE_COLUMNS) for row in differences)
    assert {row[0] for row in differences} == {"tflite:int8"}
    folds = list_fold_cells(RESULT, "balanced_accuracy")
    assert all(len(row) == len(fold_columns(RESULT)) for row in folds)
    assert [row[0] for row in folds] == ["1", "2", "3"]
