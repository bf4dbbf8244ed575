"""The report is one file that needs nothing else, says everything, and trusts no text."""

from __future__ import annotations

import re
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from lesiontk.evaluate.bootstrap import Estimate
from lesiontk.report.render import (
    ReportData,
    draw_pictures,
    render_report,
    shorten_paths,
    write_report,
)
from tests.report.page import Page, read, read_with_figures
from tests.report.sample_report import (
    SEVEN,
    TARGETS,
    TWO,
    make_inspection,
    make_report_data,
    make_split,
)

SECTIONS = ("summary", "engines", "trade-off", "classes", "changed", "heatmaps",
            "training", "data", "quantization", "provenance")  # fmt: skip


def test_nothing_is_loaded_from_elsewhere(html: str, page: Page) -> None:
    assert all(source.startswith("data:image/svg+xml;base64,") for source in page.values("src"))
    assert len(page.values("src")) == 7
    assert all(target.startswith("#") for target in page.values("href"))
    assert not {"script", "link", "iframe", "object", "embed", "base"} & {t for t, _ in page.tags}
    assert not re.search(r"https?:|@import|url\(", html)
    (policy,) = [a["content"] for t, a in page.tags if a.get("http-equiv")]
    assert policy
    assert policy.startswith("default-src 'none'")


def test_every_section_is_there_and_every_link_of_the_page_leads_somewhere(page: Page) -> None:
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    assert set(SECTIONS) <= set(ids)
    assert {target.removeprefix("#") for target in page.values("href")} <= set(ids)
    assert set(page.values("aria-labelledby")) <= set(ids)


def test_the_page_can_be_read_without_seeing_it(page: Page) -> None:
    assert ("html", {"lang": "en"}) in page.tags
    assert all(len(a["alt"] or "") > 40 for t, a in page.tags if t == "img")
    assert all(a.get("scope") in ("row", "col") for t, a in page.tags if t == "th")
    assert [t for t, _ in page.tags].count("h1") == 1


def test_equal_data_gives_equal_bytes(sample: ReportData, html: str, tmp_path: Path) -> None:
    write_report(sample, tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == html


def test_the_report_says_what_it_is_not(page: Page) -> None:
    assert "Research software, not a medical device." in page.text


HOSTILE = (
    "<script>alert(1)</script><img src=x onerror=alert(2)>\" onload='alert(3)' &amp; {{ 7*7 }}"
)


def test_hostile_text_stays_text() -> None:
    data = make_report_data()
    labels = [HOSTILE if label == "nv" else label for label in SEVEN]
    data = make_report_data(
        labels,
        name=HOSTILE,
        description=HOSTILE,
        inspection=make_inspection(source=HOSTILE, site={HOSTILE: 3}),
        split=make_split(labels, citation=HOSTILE, licence=HOSTILE),
        images=tuple(replace(i, image_id=HOSTILE, lesion_id=HOSTILE) for i in data.images),
        model=replace(data.model, architecture=HOSTILE),
        recipe={**data.recipe, "note": HOSTILE},
        versions={HOSTILE: (HOSTILE,)},
        noise=0.8,
    )
    rendered = render_report(data, draw_pictures(data))
    hostile = Page(rendered)
    assert "<script" not in rendered
    assert len(hostile.values("src")) == 7
    assert not [name for _, a in hostile.tags for name in a if name.startswith("on")]
    assert hostile.text.count(HOSTILE) > 10


def test_no_template_marks_anything_as_safe() -> None:
    folder = resources.files("lesiontk.report")
    templates = [f for f in folder.iterdir() if f.name.endswith(".j2")]
    assert len(templates) > 5
    assert not [f.name for f in templates if re.search(r"\bsafe\b[^.]*}}", f.read_text())]


def test_a_class_without_images_is_a_dash_and_no_error() -> None:
    data = make_report_data()
    nothing = dict.fromkeys(("recall[mel]", "macro_auc"), Estimate(None, None, None))
    rows = tuple(replace(row, metrics={**row.metrics, **nothing}) for row in data.benchmark.rows)
    data = replace(
        data,
        benchmark=replace(data.benchmark, rows=rows),
        metrics={
            target: replace(evaluation, metrics={**evaluation.metrics, **nothing})
            for target, evaluation in data.metrics.items()
        },
    )
    table = read_with_figures(data).tables["Engines: latency, size, memory and scores"]
    assert [row[-2:] for row in table[1:]] == [["–", "–"]] * 5


def test_two_classes_make_a_report() -> None:
    page = read_with_figures(make_report_data(TWO, "malignant"))
    assert set(SECTIONS) <= set(page.values("id"))
    assert "recall of malignant lesions" in page.text
    matrix = page.tables["Confusion matrix of tflite:float32, onnx:float32"]
    assert [row[0] for row in matrix] == ["true \\ predicted", "malignant", "benign"]


def test_what_is_missing_is_said_and_breaks_nothing() -> None:
    page = read_with_figures(
        make_report_data(
            targets=TARGETS[:1],
            split=None,
            inspection=None,
            calibration=None,
            curves=[],
            images=(),
            confidences={},
            recipe={"name": "sample"},
            lineage={},
            versions={},
        )
    )
    assert set(SECTIONS) <= set(page.values("id"))
    for sentence in (
        "There is no engine of reduced precision in this report.",
        "No engine has a full-precision parent to compare with",
        "No engine of reduced precision was compared",
        "This model has no training curves.",
        "The artefacts of the data are not available",
        "No engine was calibrated.",
    ):
        assert sentence in page.text


def test_an_int8_engine_without_a_parent_is_reported_alone() -> None:
    page = read(make_report_data(targets=("tflite:int8",), with_parents=False))
    assert "No full-precision parent was measured." in page.text
    assert "The gates apply to no engine of this run." in page.text


def test_unknown_lesions_are_a_visible_warning() -> None:
    warning = "Which images show the same lesion is not known."
    assert warning not in read(make_report_data()).text
    page = read(make_report_data(split=make_split(SEVEN, lesion_ids_known=False)))
    assert warning in page.text
    assert "Whole lesions were assigned" not in page.text


def test_synthetic_images_are_called_so() -> None:
    data = make_report_data()
    synthetic = make_inspection(source="synthetic")
    assert "drawn by a program" not in read(data).text
    page = read(replace(data, inspection=synthetic, recipe={"data": {"source": "synthetic"}}))
    assert "drawn by a program" in page.text
    assert "--data DIR" not in page.text


@pytest.mark.parametrize(
    ("value", "shortened"),
    [
        ("/home/anna/ham10000/", "ham10000"),
        ("~/weights.h5", "weights.h5"),
        ("C:\\Users\\anna\\images", "images"),
        ("data/ham10000", "data/ham10000"),
        ("imagenet", "imagenet"),
        (["/a/b", 3, None], ["b", 3, None]),
    ],
)
def test_absolute_paths_are_shortened(value: Any, shortened: Any) -> None:
    assert shorten_paths({"key": value}) == {"key": shortened}
