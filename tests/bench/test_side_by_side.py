"""Two benchmarks: paired on the same images, two samples on others, and said which."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lesiontk.bench.side_by_side import (
    EngineOutputs,
    Pairing,
    Side,
    SideBySide,
    compare_benchmarks,
)
from lesiontk.errors import UsageError
from lesiontk.evaluate.bootstrap import Estimate
from lesiontk.recipe import EvaluateRule
from lesiontk.report.side_by_side import (
    describe_verdict,
    html_from_comparison,
    list_compared_cells,
    list_notes,
    markdown_from_comparison,
    write_comparison,
)
from lesiontk.stage import EngineName
from tests.report.page import Page
from tests.report.sample_report import GROUPS, SEVEN, make_probabilities, make_report_data

FLOAT, INT8 = EngineName("tflite:float32"), EngineName("tflite:int8")
RULE = EvaluateRule(resamples=200)


def make_side(name: str, noise: float, *, prefix: str = "ISIC", **changes: Any) -> Side:
    """Return a benchmark and the outputs behind its figures."""
    benchmark = make_report_data(targets=(FLOAT, INT8), noise=noise).benchmark
    truth, probabilities = make_probabilities(SEVEN, (FLOAT, INT8), noise)
    outputs = {
        target: EngineOutputs(
            np.asarray(truth),
            np.asarray(probabilities[target], np.float32),
            list(GROUPS),
            [f"{prefix}_{row}" for row in range(len(truth))],
            benchmark.by_target[target].point.point,
        )
        for target in (FLOAT, INT8)
    }
    return Side(name, replace(benchmark, **changes), outputs)


@pytest.fixture(scope="module")
def sides() -> tuple[Side, Side]:
    return make_side("benchmark-a", 0.1), make_side("benchmark-b", 0.8, recipe="other")


@pytest.fixture(scope="module")
def paired(sides: tuple[Side, Side]) -> SideBySide:
    return compare_benchmarks(*sides, RULE)


def test_the_same_images_are_paired(paired: SideBySide) -> None:
    assert paired.pairing is Pairing.PAIRED
    assert "the same 160 test images" in paired.reason
    assert [pair.engine for pair in paired.engines] == [FLOAT, INT8]
    same, worse = paired.engines
    assert same.changed == 0
    assert same.differences["balanced_accuracy"].value == 0
    change = worse.differences["balanced_accuracy"]
    assert change.value is not None
    assert change.value < -0.1
    assert worse.changed is not None
    assert worse.changed > 0
    assert (paired.recipe_a, paired.recipe_b) == ("sample", "other")


def test_sensitivities_to_other_classes_are_not_subtracted(sides: tuple[Side, Side]) -> None:
    first, second = sides
    rows = tuple(
        replace(row, operating_point=replace(row.point, positive=("mel", "bcc")))
        for row in second.benchmark.rows
    )
    other = replace(second, benchmark=replace(second.benchmark, rows=rows))
    pair = compare_benchmarks(first, other, RULE).engines[0]
    assert "balanced_accuracy" in pair.differences
    assert not {"sensitivity", "specificity"} & set(pair.differences)
    assert {"sensitivity", "specificity"} <= set(pair.b.scores)


def test_other_images_are_two_samples_with_a_wider_interval(
    sides: tuple[Side, Side], paired: SideBySide
) -> None:
    found = compare_benchmarks(sides[0], make_side("b", 0.8, prefix="HAM"), RULE)
    assert found.pairing is Pairing.UNPAIRED
    assert "160 and 160, 0 in both" in found.reason
    same = found.engines[0]
    assert same.changed is None

    def width(estimate: Estimate) -> float:
        assert estimate.low is not None
        assert estimate.high is not None
        return estimate.high - estimate.low

    assert width(same.differences["accuracy"]) > width(paired.engines[0].differences["accuracy"])
    assert same.differences["accuracy"].value == 0


def test_other_classes_are_shown_and_not_compared(sides: tuple[Side, Side]) -> None:
    binary = replace(sides[1].benchmark, labels=("benign", "malignant"))
    found = compare_benchmarks(sides[0], replace(sides[1], benchmark=binary), RULE)
    assert found.pairing is Pairing.NONE
    assert all(not pair.differences for pair in found.engines)
    assert "The classes differ" in found.reason
    assert "not compared" in describe_verdict(found)


def test_engines_of_one_alone_are_named(sides: tuple[Side, Side]) -> None:
    alone = replace(sides[1].benchmark, rows=sides[1].benchmark.rows[:1])
    found = compare_benchmarks(sides[0], replace(sides[1], benchmark=alone), RULE)
    assert found.only_a == (INT8,)
    assert "Only in a: tflite:int8." in list_notes(found)
    row = replace(alone.rows[0], target="onnx:float32")
    stranger = replace(sides[1], benchmark=replace(alone, rows=(row,)))
    with pytest.raises(UsageError, match="expected an engine in both"):
        compare_benchmarks(sides[0], stranger, RULE)


def test_the_record_is_read_as_it_was_written(paired: SideBySide) -> None:
    assert SideBySide.from_document(paired.to_document()) == paired


def test_page_and_markdown_have_the_verdict_and_every_figure(paired: SideBySide) -> None:
    page, text = Page(html_from_comparison(paired)), markdown_from_comparison(paired)
    assert describe_verdict(paired) in page.text
    assert "is lower than in a" in describe_verdict(paired)
    cells = list_compared_cells(paired.engines[1])
    shown = page.tables["tflite:int8 in both benchmarks"][1:]
    assert [row[0] for row in shown] == [row[0] for row in cells]
    assert shown[4][1].startswith(cells[4][1].partition(" (")[0])
    assert all(f"| {' | '.join(row)} |" in text for row in cells)
    assert {row[0] for row in cells} >= {"median latency", "size", "sensitivity"}


def test_a_recipe_cannot_write_into_the_page(sides: tuple[Side, Side]) -> None:
    evil = replace(sides[1].benchmark, recipe="<script>alert(1)</script>")
    found = compare_benchmarks(sides[0], replace(sides[1], benchmark=evil), RULE)
    assert "<script>" not in html_from_comparison(found)


def test_the_file_is_of_the_kind_of_its_name(paired: SideBySide, tmp_path: Path) -> None:
    for suffix, start in ((".html", "<!DOCTYPE"), (".md", "# sample"), (".json", "{")):
        write_comparison(paired, tmp_path / "new" / f"c{suffix}")
        assert (tmp_path / "new" / f"c{suffix}").read_text().startswith(start)
    with pytest.raises(UsageError, match=r"c\.txt; expected a name that ends in \.html, \.md"):
        write_comparison(paired, tmp_path / "c.txt")
