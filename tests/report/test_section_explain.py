"""Heatmaps are shown with what they are worth."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from lesiontk.report.render import render_report
from tests.report.page import Page, read
from tests.report.sample_explanation import MISSED, UNSURE, WRONG, make_explanation
from tests.report.sample_report import make_report_data, make_split

NBSP = "\N{NO-BREAK SPACE}"
EXPLANATION, HEATMAPS = make_explanation()


@pytest.fixture(scope="module")
def html() -> str:
    return render_report(make_report_data(explanation=EXPLANATION, heatmaps=HEATMAPS), {})


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


def read_card(html: str, image_id: str) -> str:
    """Return what a reader sees of one image."""
    (card,) = [
        c for c in re.findall(r"(?s)<figure class=\"case.*?</figure>", html) if image_id in c
    ]
    return re.sub(r"[ \n]+", " ", Page(card).text).strip()


def test_a_missed_melanoma_is_marked_as_such(html: str) -> None:
    assert read_card(html, MISSED) == (
        f"{MISSED}mel missed ✗ wrong: true mel 25.0{NBSP}%, predicted nv 62.5{NBSP}% "
        "image predicted nv true mel"
    )
    assert html.count('class="case loss"') == 1


def test_another_error_is_not(html: str) -> None:
    assert read_card(html, WRONG) == (
        f"{WRONG} ✗ wrong: true nv 25.0{NBSP}%, predicted bkl 62.5{NBSP}% "
        "image predicted bkl true nv no evidence"
    )


def test_an_image_that_is_right_shows_what_it_was_nearly_taken_for(html: str) -> None:
    assert read_card(html, UNSURE) == (
        f"{UNSURE} ✓ right: true df, predicted df 62.5{NBSP}%, then vasc 25.0{NBSP}% "
        "image predicted df runner-up vasc"
    )


def test_every_picture_is_there_in_its_order_and_says_what_it_shows(page: Page) -> None:
    assert page.values("src") == list(HEATMAPS.values())
    texts = [a["alt"] or "" for t, a in page.tags if t == "img"]
    assert all(len(text) > 40 for text in texts)
    assert len(set(texts)) == len(texts)
    assert "evidence for melanoma" in texts[2]


def test_the_section_says_how_much_was_wrong_and_how_coarse_the_map_is(page: Page) -> None:
    for sentence in (
        "is wrong on 2 of 160 test images; of 24 images of melanoma it misses 1.",
        "Shown: 3 images, first those of melanoma that were missed",
        "layer block6_relu",
        "only 4 × 3 cells",
        "arXiv:1610.02391",
        "does not prove how the network decides (Adebayo et al., arXiv:1810.03292)",
        "scaled to its own maximum",
        "Licence: CC BY-NC 4.0; it also applies to this file.",
    ):
        assert sentence in page.text


def test_nothing_missed_is_said_too() -> None:
    explanation = replace(EXPLANATION, critical_missed=0, images=EXPLANATION.images[1:])
    page = read(make_report_data(explanation=explanation, heatmaps=HEATMAPS))
    assert "of 24 images of melanoma it misses none" in page.text
    assert "mel missed" not in page.text


def test_without_an_explanation_the_section_says_so() -> None:
    page = read(make_report_data())
    assert "No heatmaps were made; the recipe's explain.images sets their number." in page.text
    assert page.values("src") == []


def test_without_a_split_there_is_no_licence_to_state() -> None:
    page = read(make_report_data(explanation=EXPLANATION, heatmaps=HEATMAPS, split=None))
    assert "it also applies to this file" not in page.text
    assert len(page.values("src")) == 9


def test_hostile_text_stays_text() -> None:
    hostile = "<script>alert(1)</script>\" onload='alert(2)' {{ 7*7 }}"
    images = tuple(replace(i, image_id=hostile + i.image_id) for i in EXPLANATION.images)
    data = make_report_data(
        explanation=replace(EXPLANATION, images=images, layer=hostile),
        heatmaps=HEATMAPS,
        split=make_split(("mel", "nv", "akiec", "bcc", "bkl", "df", "vasc"), licence=hostile),
    )
    rendered = render_report(data, {})
    assert "<script" not in rendered
    page = Page(rendered)
    assert not [name for _, a in page.tags for name in a if name.startswith("on")]
    assert page.text.count(hostile) >= 5
