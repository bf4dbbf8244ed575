"""Each section says what the artefacts hold."""

from __future__ import annotations

from dataclasses import replace

from lesiontk.evaluate.bootstrap import Estimate
from lesiontk.evaluate.fit_input_checks import ClassRefusals, FamilyRefusals, InputChecks
from lesiontk.evaluate.subgroups import SubgroupChange, SubgroupResult
from lesiontk.records import Preprocessing
from lesiontk.report.formatting import (
    format_percent,
    share_estimate,
)
from lesiontk.report.render import (
    ReportData,
)
from lesiontk.report.tables import (
    list_changed,
    list_confusions,
    list_front,
)
from tests.report.page import Page, read
from tests.report.sample_report import TARGETS, make_report_data

NBSP = "\N{NO-BREAK SPACE}"


def test_failed_gates_are_said_in_words(page: Page) -> None:
    assert "✗ 2 of 2 gates failed." in page.text
    assert "tflite:int8 fails balanced_accuracy >= parent - 0.01 @ 0.95" in page.text
    rows = page.tables["Acceptance gates"][1:]
    assert [row[-1] for row in rows] == ["✗ failed", "✗ failed"]


def test_a_model_that_may_have_seen_the_test_images_is_said_to() -> None:
    said = "It may have seen the test images."
    data = make_report_data()
    foreign = replace(data, model=replace(data.model, may_have_seen_test=True))
    assert said in read(foreign).text
    assert said not in read(data).text


def test_passed_gates_are_said_in_words() -> None:
    text = read(make_report_data()).text
    assert "✓ All 2 gates passed." in text
    assert "failed" not in text


def test_a_gate_that_is_not_shown_is_not_passed_over() -> None:
    """Engines that answer alike, on too few lesions to show a loss of less than two points."""
    page = read(make_report_data(noise=0.0, max_drop=0.02))
    assert "– 2 of 2 gates are not shown." in page.text
    assert "passed" not in page.text.partition("Acceptance gates")[0]
    row = page.tables["Acceptance gates"][1]
    assert row[-1].startswith("– not shown the measured loss is 0, but")
    assert "80 lesions are too few; about" in row[-1]


def test_a_recipe_without_gates_says_that_nothing_was_accepted() -> None:
    data = make_report_data()
    data = replace(data, benchmark=replace(data.benchmark, gate=(), gates=()))
    assert "has no acceptance gates" in read(data).text


def test_every_engine_has_its_row_in_both_tables(sample: ReportData, page: Page) -> None:
    table = page.tables["Engines: latency, size, memory and scores"]
    assert len(table) == 1 + len(TARGETS)
    (int8,) = [row for row in table if row[0].startswith("TFLite") and row[1] == "int8"]
    metrics = sample.metrics["tflite:int8"].metrics
    assert int8[2:8] == ["0.189 ms", "0.227 ms", "100", "1", "433 kB400 kB deflated", "51.0 MB"]
    for cell, metric in ((8, "accuracy"), (9, "balanced_accuracy"), (11, "recall[mel]")):
        estimate = share_estimate(metrics[metric])
        assert int8[cell] == estimate.value + estimate.interval
    parents = page.tables["Engines against their full-precision parents"]
    assert [row[:2] for row in parents[1:]] == [
        ["tflite:float32", "keras:float32"],
        ["tflite:int8", "tflite:float32"],
        ["onnx:float32", "keras:float32"],
        ["onnx:int8", "onnx:float32"],
    ]
    versus = sample.benchmark.by_target["onnx:int8"].versus_parent
    assert versus is not None
    lesions = {image.index // 2 for image in versus.changed}
    assert parents[-1][-2:] == [str(len(versus.changed)), str(len(lesions))]


def test_the_pareto_mark_stands_at_the_engines_of_the_front(sample: ReportData, page: Page) -> None:
    table = page.tables["Engines: latency, size, memory and scores"][1:]
    marked = {TARGETS[i] for i, row in enumerate(table) if "Pareto" in row[0]}
    assert marked == set(list_front(sample.benchmark))
    assert "tflite:int8" in marked


def test_changed_images_are_shown_with_their_names_and_confidences(
    sample: ReportData, page: Page
) -> None:
    table = list_changed(sample.benchmark, sample.images, sample.confidences)[0]
    shown = page.tables["Images to which tflite:int8 gives another class"]
    assert len(shown) == 1 + len(table.rows)
    first = table.rows[0]
    assert first.image is not None
    assert first.confidence_before is not None
    assert first.confidence_after is not None
    assert shown[1] == [
        first.image.image_id,
        first.image.lesion_id,
        "mel",
        f"mel {format_percent(first.confidence_before)}",
        f"{first.to_label} {format_percent(first.confidence_after)}",
        "✓ right",
        "✗ wrongmel lost",
    ]
    lost = f"{table.critical_losses} images of melanoma that the parent recognized are lost"
    assert lost in page.text
    assert f"{table.left_out} more are not listed" in page.text


def test_confusion_matrices_are_shown(sample: ReportData, page: Page) -> None:
    row = list_confusions(sample.benchmark, sample.metrics)[1].rows[0]
    shown = page.tables["Confusion matrix of tflite:int8"]
    assert shown[1][0] == "mel"
    assert shown[1][1].startswith(str(row.counts[0]))
    assert shown[1][-1] == str(row.total)


def test_without_ids_the_changed_images_are_known_by_their_row() -> None:
    data = make_report_data(noise=0.8, images=(), confidences={})
    table = list_changed(data.benchmark, (), {})[0]
    assert table.lesions is None
    shown = read(data).tables["Images to which tflite:int8 gives another class"]
    assert shown[1][:2] == [f"row {table.rows[0].row}", "–"]


def test_data_facts_are_all_there(page: Page) -> None:
    for fact in (
        "5" * 64,
        "1 group: ISIC_0000003 = ISIC_0000004",
        "12 pairs, 3 of different lesions",
        "1: ISIC_0000001 (truncated); left out",
        "1: ISIC_0000002; 1 file that no table lists",
        "median 50 years, middle half 40 to 65",
        "female 4\N{NARROW NO-BREAK SPACE}552",
        "CC BY-NC 4.0",
        "doi:10.1038/sdata.2018.161",
        "2 lesions have images of different diagnoses",
    ):
        assert fact in page.text
    rows = page.tables["Images and lesions of each class and subset"]
    assert rows[1][0].startswith("mel")
    assert rows[1][2:] == ["110 (55)", "22 (11)", "22 (11)", "154 (77)"]
    assert rows[-1][-1] == "1\N{NARROW NO-BREAK SPACE}120 (560)"


def test_the_enhancement_of_the_input_is_told_where_there_is_one() -> None:
    data = make_report_data()
    for enhance, expected in ((("hair_removal", "edge_detection"), True), ((), False)):
        model = replace(data.model, preprocessing=Preprocessing(96, enhance=enhance))
        text = read(replace(data, model=model)).text
        assert "pixels, RGB, resized by crop" in text
        assert ("resized by crop, then hair removal, edge detection" in text) is expected


def test_training_facts_are_all_there(page: Page) -> None:
    for fact in (
        "409\N{NARROW NO-BREAK SPACE}767 parameters",
        "64 × 64 pixels",
        "6 of at most 14; best: 5",
        "67 min",
        "sqrt sampling",
        "AdamW, learning rate 0.002 (cosine, 1 warm-up epoch), batch 32, weight decay 0.05",
    ):
        assert fact in page.text


def test_calibration_and_verification_are_all_there(page: Page) -> None:
    assert "103 validation and 100 test images were compared" in page.text
    assert "105 training images" in page.text
    checks = page.tables["Verification of each engine"]
    assert checks[0][1:] == ["mean probability drift", "share of int8 weights", "n"]
    small = "3.70 × 10⁻⁸≤ 0.001✓ passed"
    assert checks[1][1:] == [small, "–", "103"]
    assert checks[3][1:] == [small, "0.997≥ 0.9✓ passed", "103"]
    structure = page.tables["Structure of the engines"]
    assert structure[3][1:3] == ["11 int8, 1 float32", f"> 99.9{NBSP}%"]
    assert "SOFTMAX -> out:0: kept in float on purpose" in structure[3][4]
    assert "CONV_2D -> in:0: no reason was recorded" in structure[3][4]


def test_the_run_can_be_traced_and_run_again(page: Page) -> None:
    assert "lesiontk run sample.yaml --data DIR" in page.text
    assert "tensorflow 2.20.0 and 2.21.0" in page.text
    assert page.tables["Artefacts this report was made from"][1] == [
        "model", "model-0123456789ab", "c" * 12, "images-1",
    ]  # fmt: skip
    assert "path: pictures" in page.text
    assert "somebody" not in page.text


def test_the_frozen_threshold_is_shown_with_what_it_gives(sample: ReportData, page: Page) -> None:
    table = page.tables["Sensitivity and specificity at the frozen threshold"]
    assert [row[0] for row in table[1:]] == list(TARGETS)
    for shown, row in zip(table[1:], sample.benchmark.rows, strict=True):
        point = row.point
        assert point.validation is not None
        assert shown[2] == format_percent(point.validation.sensitivity)
        for cell, name in ((5, "sensitivity"), (6, "specificity")):
            estimate = share_estimate(getattr(point, name))
            assert shown[cell] == estimate.value + estimate.interval
    assert table[1][7] == "–"
    assert "akiec + bcc + mel" in page.text


def test_subgroups_stand_beside_the_images_that_they_are_of(sample: ReportData, page: Page) -> None:
    assert "By age, sex, site and brightness" not in page.text
    groups = {
        target: tuple(
            SubgroupResult("sex", value, n, n // 2, n // 8, *estimates)
            for value, n, estimates in (
                ("female", 90, (Estimate(0.5 + place / 10, 0.4, 0.7 + place / 10),) * 3),
                ("male", 70, (Estimate(None, None, None),) * 3),
            )
        )
        for place, target in enumerate(sample.metrics)
    }
    metrics = {t: replace(found, subgroups=groups[t]) for t, found in sample.metrics.items()}
    tables = read(replace(sample, metrics=metrics)).tables
    head, women, men = tables["Sensitivity by subgroup"]
    assert len(head) == 3 + len(sample.metrics)
    assert women[:3] == ["sex: female", "90", "11"]
    assert women[3].startswith(f"50.0{NBSP}%")
    assert women[4].startswith(f"60.0{NBSP}%")
    assert men[3] == "–"


def test_changes_of_subgroups_are_those_against_the_parent(sample: ReportData, page: Page) -> None:
    assert "in some subgroup" not in page.text
    value, none = Estimate(-0.01, -0.03, 0.01), Estimate(None, None, None)
    change = SubgroupChange("sex", "female", 90, 11, value, none, Estimate(-0.02, -0.04, 0.0), none)
    rows = tuple(
        replace(row, versus_parent=replace(row.versus_parent, subgroups=(change,)))
        if row.versus_parent
        else row
        for row in sample.benchmark.rows
    )
    found = read(replace(sample, benchmark=replace(sample.benchmark, rows=rows)))
    tables = [name for name in found.tables if name.startswith("Changes of")]
    assert tables == ["Changes of tflite:int8 by subgroup", "Changes of onnx:int8 by subgroup"]
    _, row = found.tables[tables[0]]
    assert row[:3] == ["sex: female", "90", "11"]
    assert row[3].startswith("−1.0")
    assert row[4].startswith("−2.0") or row[5].startswith("−2.0")


def test_the_input_checks_show_whom_they_refuse(sample: ReportData, page: Page) -> None:
    assert "Input checks" not in page.text
    checks = InputChecks(
        target="tflite:int8",
        file="tflite_int8.tflite",
        images={"train": 10, "validation": 1503, "test": 20},
        quality={},
        score="Mahalanobis distance of features, 64 axes",
        threshold=3.0,
        candidates=(),
        false_refusals={"poor_quality": 0.006, "out_of_domain": 0.02},
        classes=(ClassRefusals("mel", 167, 1, 7, 0.085),),
        families=(FamilyRefusals("photograph", 150, 80, 67, 0.997, 1.0, chosen_on=False),),
    )
    found = read(replace(sample, input_checks={"tflite:int8": checks}))
    assert f"validation images 0.6{NBSP}% are refused for their quality" in found.text
    _, row = found.tables["Test images that tflite:int8 refuses"]
    assert row == ["melanoma", "167", "1", "7", f"4.8{NBSP}%", f"8.5{NBSP}%"]
    _, row = found.tables["Other pictures that tflite:int8 refuses"]
    assert row[0].startswith("photograph")
    assert row[1:5] == ["150", "80", "67", f"98.0{NBSP}%"]
