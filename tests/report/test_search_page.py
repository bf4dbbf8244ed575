"""The page of a search shows what was compared, what is left, and what the choice costs."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from lesiontk.report.search_page import render_search_page, write_search_page
from lesiontk.report.search_plots import plot_parallel
from lesiontk.report.search_words import (
    describe_readings,
    describe_search,
    describe_trial,
    describe_winner,
    show_figure,
)
from lesiontk.search.criteria import Violation
from lesiontk.search.result import SearchResult, TestReading
from tests.report.page import Page
from tests.report.sample_search import make_result


@pytest.fixture(scope="module")
def result() -> SearchResult:
    return make_result()


@pytest.fixture(scope="module")
def html(result: SearchResult) -> str:
    return render_search_page(result)


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


def test_the_front_has_its_engines_with_validation_and_test(
    result: SearchResult, page: Page
) -> None:
    rows = page.tables["Engines of the front"][1:]
    assert [row[0].removesuffix("noisy") for row in rows] == [
        result.figures(number).engine for number in result.front
    ]
    best = result.figures(result.front[0])
    assert rows[0][2] == f"{best.value('balanced_accuracy'):.3f}"
    assert rows[0][5] == "0.6700.610–0.720"


def test_what_cannot_be_chosen_says_why(result: SearchResult, page: Page) -> None:
    rows = page.tables["Trials that are not to be chosen"][1:]
    states = [trial.state for trial in result.trials if trial.state != "complete"]
    assert [row[1] for row in rows] == states
    why = {row[2] for row in rows}
    assert any(re.match(r"p90_ms <= 5: \d+\.\d+ ms", text) for text in why)
    assert any("parent - 0.03: 0.858, limit 0.870" in text for text in why)
    assert any("the loss is not finite" in text for text in why)
    assert any("its training fell behind" in text for text in why)


def test_a_label_may_contain_a_space() -> None:
    """And the word parent, in a bound that is not relative."""
    constraint = "recall[basal cell of a parent] >= 0.5"
    sample = make_result()
    first = sample.trials[0]
    assert first.figures is not None
    values = {**first.figures.values, "recall[basal cell of a parent]": 0.25}
    violation = Violation(constraint, 0.25, 0.5)
    missed = replace(
        first, state="infeasible", violations=(violation,),
        figures=replace(first.figures, values=values),
    )  # fmt: skip
    result = replace(sample, constraints=(constraint,), trials=(missed,), front=())
    assert result.figure_names == (*result.objectives, "recall[basal cell of a parent]")
    assert describe_trial(missed) == f"{constraint}: 0.250"
    picture = plot_parallel(result)
    assert picture is not None
    assert "basal cell of a parent" in picture.alternative
    assert f"{constraint}: 0.250" in Page(render_search_page(result)).text.replace("≥", ">=")


def test_an_engine_that_two_trials_led_to_counts_once(result: SearchResult, page: Page) -> None:
    rows = page.tables["All trials"][1:]
    assert len(rows) == len(result.trials)
    assert [row for row in rows if "(again)" in " ".join(row)] == [rows[-1]]
    assert "25 trials led to 22 different engines" in page.text


def test_the_choice_and_the_test_readings_are_said(result: SearchResult, page: Page) -> None:
    (winner,) = result.winners
    assert describe_winner(winner) in page.text
    assert "corrected for the choice among them it is 0.722" in page.text
    assert "read once, by 3 engines of the front, after 22 candidates" in page.text
    assert "Tsamardinos" in page.text


def test_a_second_reading_of_the_test_images_is_a_warning(result: SearchResult) -> None:
    twice = replace(result, readings=(*result.readings, TestReading(40, ("engine-1",))))
    assert "read 2 times (after 22 by 3, after 40 by 1 engines)" in describe_readings(twice)
    never = replace(result, readings=())
    assert describe_readings(never) == "The test images have not been read."


def test_noisy_latencies_are_marked_with_the_reason(result: SearchResult, page: Page) -> None:
    noisy = [t.number for t in result.trials if t.figures is not None and t.figures.noise]
    assert f"{len(noisy)} trials with a noisy latency" in page.text
    rows = page.tables["All trials"][1:]
    assert [int(row[0]) for row in rows if "other programs used 50%" in row[6]] == noisy


def test_the_figures_have_words(page: Page) -> None:
    words = page.values("alt")
    assert len(words) == 3
    assert words[0].startswith("balanced accuracy over latency, 90th percentile (ms)")
    assert words[1].startswith("Parallel coordinates of 22 engines over target, compress")
    assert "compress for balanced_accuracy: 71%" in words[2]


def test_nothing_is_loaded_from_elsewhere_and_links_lead_somewhere(page: Page) -> None:
    assert all(source.startswith("data:") for source in page.values("src"))
    links = [link.removeprefix("#") for link in page.values("href")]
    assert set(links) <= set(page.values("id"))


def test_an_unfinished_search_says_so(result: SearchResult) -> None:
    running = replace(result.trials[0], number=90, state="running", figures=None)
    going = replace(result, trials=(*result.trials, running))
    assert "The search is not finished." in Page(render_search_page(going)).text
    assert "1 running" in describe_search(going)


def test_a_grid_that_was_stopped_says_so(result: SearchResult) -> None:
    waiting = replace(result.trials[0], number=90, state="waiting", figures=None)
    text = Page(render_search_page(replace(result, trials=(*result.trials, waiting)))).text
    assert "The grid was not tried as a whole. Its other candidates (1) wait" in text
    assert "not finished" not in text


def test_a_search_without_engines_has_a_page(tmp_path: Path) -> None:
    empty = make_result(trials=0)
    write_search_page(empty, tmp_path / "search.html")
    text = Page((tmp_path / "search.html").read_text(encoding="utf-8")).text
    assert "No engine meets all constraints." in text


def test_one_objective_is_drawn_over_latency(result: SearchResult) -> None:
    alone = replace(result, objectives=("balanced_accuracy",))
    assert (
        Page(render_search_page(alone))
        .values("alt")[0]
        .startswith("balanced accuracy over latency")
    )


def test_hostile_text_stays_text(result: SearchResult) -> None:
    hostile = replace(result, name="<script>alert(1)</script>")
    assert "<script" not in render_search_page(hostile)


def test_a_result_survives_its_document(result: SearchResult) -> None:
    assert SearchResult.from_document(result.to_document()).to_document() == result.to_document()


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("p90_ms", 4.1234, "4.12 ms"),
        ("size_mb", 1.5, "1.50 MB"),
        ("balanced_accuracy", 0.71234, "0.712"),
        ("p90_ms", None, "–"),
    ],
)
def test_figures_have_units(name: str, value: float | None, shown: str) -> None:
    assert show_figure(name, value) == shown
