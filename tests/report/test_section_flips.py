"""Flips are shown as cards with pictures and both probability vectors, the costliest first."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lesiontk.explain.explanation import Heatmap
from lesiontk.explain.flips import Direction, Flip, Flips
from lesiontk.report.flip_cards import list_probabilities
from lesiontk.report.render import ReportData
from tests.report.page import Page, read
from tests.report.sample_report import SEVEN

INT8, FLOAT = "tflite:int8", "tflite:float32"


def make_flip(number: int, true: str, before: str, after: str, direction: Direction) -> Flip:
    rest = dict.fromkeys(SEVEN, 0.02)
    return Flip(
        image_id=f"ISIC_{number:07d}",
        group=f"lesion {number}",
        true_label=true,
        from_label=before,
        to_label=after,
        direction=direction,
        parent={**rest, before: 0.5, after: 0.4},
        engine={**rest, before: 0.3125, after: 0.5875},
        picture=f"{number}.jpg",
        evidence=(
            Heatmap(before, f"{number}_from.jpg", empty=False),
            Heatmap(after, f"{number}_to.jpg", empty=True),
        ),
    )


def make_flips(pictured: int = 2) -> Flips:
    flips = [
        make_flip(1, "mel", "mel", "nv", Direction.LOST),
        make_flip(2, "nv", "nv", "bcc", Direction.RAISED),
        make_flip(3, "nv", "nv", "bkl", Direction.WITHIN),
    ]
    plain = [replace(flip, picture=None, evidence=()) for flip in flips]
    return Flips(
        target=INT8,
        parent=FLOAT,
        reference=False,
        judged=160,
        layer="block5_relu",
        positive=("akiec", "bcc", "mel"),
        flips=(*flips[:pictured], *plain[pictured:]),
    )


def show(sample: ReportData, flips: Flips) -> Page:
    files = [
        file
        for flip in flips.pictured
        for file in (flip.picture or "", *(heat.file for heat in flip.evidence))
    ]
    pictures = {file: f"data:image/jpeg;base64,{number}AAA" for number, file in enumerate(files)}
    return read(replace(sample, flips={INT8: flips}, flip_pictures={INT8: pictures}))


@pytest.fixture(scope="module")
def shown(sample: ReportData) -> Page:
    return show(sample, make_flips())


def test_every_pictured_flip_has_its_image_and_the_evidence_for_both_classes(shown: Page) -> None:
    alternatives = shown.values("alt")
    assert "The test image ISIC_0000001 as the network’s input" in alternatives
    assert "Heatmap over ISIC_0000001: evidence for melanoma" in alternatives
    assert shown.values("src").count("data:image/jpeg;base64,0AAA") == 1
    assert "The test image ISIC_0000003 as the network’s input" not in alternatives


def test_direction_truth_and_both_vectors_are_said(shown: Page) -> None:
    assert "malignant → benign true mel: mel ✓ → nv ✗" in shown.text
    assert "benign → malignant true nv: nv ✓ → bcc ✗" in shown.text
    rows = list_probabilities(make_flips().flips[0])
    assert [row.label for row in rows[:2]] == ["mel", "nv"]
    assert len(rows) == len(SEVEN)
    assert "mel (true)50.0\N{NO-BREAK SPACE}%31.2\N{NO-BREAK SPACE}%" in shown.text


def test_it_says_how_many_there_are_and_where_the_rest_is(sample: ReportData, shown: Page) -> None:
    assert "The first 2 of 3 are shown; flips_tflite_int8.csv beside this file has all" in (
        shown.text
    )
    assert "1 from akiec or bcc or mel to another class" in shown.text
    assert "All are shown" in show(sample, make_flips(pictured=3)).text


def test_a_report_without_pictures_has_the_table_alone(page: Page) -> None:
    assert "are shown; flips" not in page.text
    assert "Images to which tflite:int8 gives another class" in page.tables
