"""The section on corrupted images answers its question first, then shows every corruption."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lesiontk.evaluate.bootstrap import Estimate
from lesiontk.evaluate.robustness import ACCURACY, COMPARED, Robustness
from lesiontk.report.render import ReportData
from lesiontk.report.robustness_rows import (
    COLUMNS,
    describe_robustness,
    describe_shown,
    list_robustness_cells,
)
from tests.report.page import Page, read
from tests.report.sample_robustness import make_robustness


@pytest.fixture(scope="module")
def fragile() -> Robustness:
    return make_robustness(fragile=True)


@pytest.fixture(scope="module")
def shown(sample: ReportData, fragile: Robustness) -> Page:
    return read(replace(sample, robustness={"tflite:int8": fragile}))


def test_every_corruption_has_a_row_with_its_strength(shown: Page, fragile: Robustness) -> None:
    rows = shown.tables["tflite:int8 on corrupted images"]
    assert len(rows) == 2 + 18 + 1
    assert rows[2][0] == "hair 1 5 hairs of 0.08 mm"
    assert all(len(row) == 10 for row in rows[2:])


def test_the_answer_is_a_sentence_before_the_table(shown: Page, fragile: Robustness) -> None:
    assert "tflite:int8 loses more on corrupted images than its parent" in shown.text
    assert describe_shown(fragile) in shown.text
    assert "of 1\u202f504." in describe_robustness(fragile)


def test_a_frame_marks_what_is_shown(shown: Page, fragile: Robustness) -> None:
    framed = sum(value == "cell shown" for value in shown.values("class"))
    assert framed == sum(len(fragile.list_shown(metric)) for metric in COMPARED)
    assert framed > 0


def test_an_engine_that_does_not_lose_more_is_not_accused() -> None:
    found = make_robustness()
    text = describe_robustness(found)
    assert "is not shown to lose more" in text
    better = replace(found, overall={ACCURACY: Estimate(0.02, 0.01, 0.03)})
    assert "loses less on corrupted images" in describe_robustness(better)
    unknown = replace(found, overall={ACCURACY: Estimate(0.0, None, None)})
    assert "do not show whether" in describe_robustness(unknown)


def test_what_is_there_by_chance_is_said(fragile: Robustness) -> None:
    assert "about 0.5 of 18 would be by chance" in describe_shown(fragile)
    few = replace(fragile, results=fragile.results[:2])
    assert describe_shown(few).startswith("Under 2 of 2 corruptions (hair 1, hair 2) the engine")


def test_the_table_of_the_command_has_a_cell_for_each_column(fragile: Robustness) -> None:
    cells = list_robustness_cells(fragile)
    assert {len(row) for row in cells} == {len(COLUMNS)}
    assert cells[0][:2] == ["hair 1", "5 hairs of 0.08 mm"]


def test_without_the_measurement_there_is_no_section(page: Page) -> None:
    assert "Corrupted images" not in page.text
