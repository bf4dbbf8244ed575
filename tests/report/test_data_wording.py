"""Sentences with counts are true where the count is none, one or all."""

from __future__ import annotations

import pytest

from lesiontk.data.dealt_split import DealtSplit
from lesiontk.data.duplicates import Crowd
from lesiontk.data.inspection import Inspection
from lesiontk.report.data_wording import describe_near_duplicates, describe_sites
from tests.report.sample_report import TWO, make_calibration, make_inspection, make_split


def inspection(pairs: int, across: int = 0, crowd: int = 0) -> Inspection:
    return make_inspection(
        near_duplicates=pairs,
        near_duplicates_across_lesions=across,
        crowds=(Crowd("ISIC_1", crowd),) if crowd else (),
    )


def split(apart: int, near_duplicates: str = "group", *, leaky: bool = False) -> DealtSplit:
    return make_split(
        TWO,
        near_duplicates_on_several_sides=apart,
        near_duplicates=near_duplicates,
        leaky=leaky,
    )


@pytest.mark.parametrize(
    ("found", "dealt", "words"),
    [
        (inspection(0), None, "none"),
        (inspection(0), split(0), "none"),
        (inspection(1), None, "1 pair"),
        (inspection(1, 1), None, "1 pair, 1 of different lesions"),
        (inspection(3), split(0), "3 pairs; none is in two subsets of the split"),
        (inspection(0, crowd=150), None, "150 images are near-duplicates, ISIC_1 and others, whose "
                                         "pairs are not listed"),
        (inspection(9, 9), split(1), "9 pairs, 9 of different lesions; 1 set of them in several "
                                     "subsets of the split: they have lesion ids, which differ"),
        (inspection(9), split(2, "accept"), "9 pairs; 2 sets of them in several subsets of the "
                                            "split: they were accepted with "
                                            "--accept-near-duplicates"),
        (inspection(9), split(2, leaky=True), "9 pairs; 2 sets of them in several subsets of the "
                                              "split: the split goes by image"),
    ],
)  # fmt: skip
def test_near_duplicates(found: Inspection, dealt: DealtSplit | None, words: str) -> None:
    assert describe_near_duplicates(found, dealt) == words


@pytest.mark.parametrize(
    ("covered", "sites", "words"),
    [
        (1, 1, "the only one of the training images"),
        (1, 4, "1 of the 4 sites of the training images"),
        (4, 4, "all 4 sites of the training images"),
    ],
)
def test_body_sites(covered: int, sites: int, words: str) -> None:
    by_site = {f"site {n}": 1 for n in range(covered)}
    assert (
        describe_sites(make_calibration(TWO, images_by_site=by_site, sites_of_training=sites))
        == words
    )
