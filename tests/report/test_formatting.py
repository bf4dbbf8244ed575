"""Numbers read as their readers expect."""

from __future__ import annotations

import pytest

from lesiontk.evaluate.bootstrap import Estimate
from lesiontk.report.formatting import (
    count_things,
    format_bytes,
    format_decimal,
    format_duration,
    format_exact_share,
    format_number,
    format_p_value,
    format_percent,
    format_plain,
    format_points,
    points_estimate,
    share_estimate,
)
from lesiontk.report.result_table import format_estimate
from lesiontk.report.wording import (
    compare_size,
    explain_float_operator,
    name_metric,
)

NBSP = "\N{NO-BREAK SPACE}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (format_number(0.189), "0.189"),
        (format_number(0.9996), "1.00"),
        (format_number(1234567), "1\N{NARROW NO-BREAK SPACE}234\N{NARROW NO-BREAK SPACE}567"),
        (format_number(-0.00321), "−0.00321"),
        (format_number(None), "–"),
        (format_number(2.5e-9), "2.50 × 10⁻⁹"),
        (format_plain(0.002), "0.002"),
        (format_plain(100), "100"),
        (format_plain(1.0), "1"),
        (format_percent(0.77123), f"77.1{NBSP}%"),
        (format_percent(None), "–"),
        (format_exact_share(0.9999), f"> 99.9{NBSP}%"),
        (format_exact_share(1.0), f"100.0{NBSP}%"),
        (format_exact_share(0.0001), f"< 0.1{NBSP}%"),
        (format_points(-0.0041), "−0.4"),
        (format_points(0.0041), "+0.4"),
        (format_points(-0.0000001), "0.0"),
        (format_percent(-0.0004), f"0.0{NBSP}%"),
        (format_decimal(-0.0004), "0.000"),
        (format_decimal(-0.0006), "−0.001"),
        (format_estimate(Estimate(-0.0004, -0.007, 0.0)), "0.000 [-0.007, 0.000]"),
        (format_bytes(428_816), "429 kB"),
        (format_bytes(999_600), "1.00 MB"),
        (format_bytes(512), "512 B"),
        (format_bytes(2.5e13), "25\N{NARROW NO-BREAK SPACE}000 GB"),
        (format_bytes(None), "–"),
        (format_duration(33.2), "33 s"),
        (format_duration(4000), "67 min"),
        (format_duration(12300), "3 h 25 min"),
        (format_p_value(0.00004), "< 0.001"),
        (format_p_value(0.0123), "0.012"),
        (format_p_value(1.0), "1.00"),
        (count_things(1, "file"), "1 file"),
        (count_things(2, "class", "classes"), "2 classes"),
        (compare_size(1.01), "practically as large as"),
        (name_metric("recall[mel]"), "melanoma recall"),
        (name_metric("macro_auc"), "macro AUC"),
        (name_metric("recall"), "recall"),
        (name_metric("f1[nv]"), "F1 of nv"),
        (explain_float_operator("CONV_2D -> a", "tflite:int8"), "no reason was recorded"),
        (
            explain_float_operator("DEPTHWISE_CONV_2D -> a", "tflite:int8"),
            "no reason was recorded",
        ),
        (
            explain_float_operator("CONV_2D -> a", "tflite:mixed"),
            "among the layers that the sensitivity search keeps in float",
        ),
    ],
)
def test_numbers_and_names_read_as_expected(text: str, expected: str) -> None:
    assert text == expected


def test_intervals_read_as_expected() -> None:
    share = share_estimate(Estimate(0.771, 0.662, 0.888))
    assert (share.value, share.interval) == (f"77.1{NBSP}%", f"66.2–88.8{NBSP}%")
    points = points_estimate(Estimate(-0.004, -0.012, 0.005))
    assert (points.value, points.interval) == ("−0.4", "−1.2 to +0.5")
    lonely = share_estimate(Estimate(0.5, None, None))
    assert (lonely.value, lonely.interval) == (f"50.0{NBSP}%", "")
    assert share_estimate(Estimate(None, None, None)).value == "–"
    assert share_estimate(None).value == "–"
