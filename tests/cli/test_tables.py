"""What a terminal shows of a benchmark: no speed that was not measured, and what goes with it."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from lesiontk.bench.findings import list_findings
from lesiontk.cli.main import cli
from lesiontk.cli.tables import print_benchmark, print_table
from tests.report.sample_report import TARGETS, TWO, make_report_data


def show(capsys: pytest.CaptureFixture[str], **changes: Any) -> tuple[dict[str, list[str]], str]:
    """Return target -> the cells of its row, and all that is printed."""
    benchmark = make_report_data(TWO, "malignant", **changes).benchmark
    print_benchmark(replace(benchmark, findings=tuple(list_findings(benchmark))))
    printed = capsys.readouterr().out
    rows = [line.strip("│┃ ").split("│") for line in printed.splitlines() if "│" in line]
    engines = [[cell.strip() for cell in row] for row in rows if len(row) == 9]
    return {row[0]: row[1:] for row in engines}, printed


def test_a_speedup_is_shown_with_its_interval(capsys: pytest.CaptureFixture[str]) -> None:
    rows, printed = show(capsys)
    assert rows["tflite:int8"][-2] == "2.78× (2.73–2.84)"
    assert rows["tflite:float32"][-2].endswith("than keras:float32")
    assert "warning:" not in printed


def test_an_emulated_engine_has_no_latency(capsys: pytest.CaptureFixture[str]) -> None:
    rows, printed = show(capsys, targets=(*TARGETS, "tensorrt:int8"))
    median, p90, size, memory, *_, faster, smaller = rows["tensorrt:int8 (emulated)"]
    assert {median, p90, memory, faster} == {"–"}
    assert size == "433 kB"
    assert smaller != "–"
    assert not re.search(r"0\.0[78]\b", printed)
    assert "tensorrt:int8 was emulated by ONNX Runtime on the CPU" in printed
    assert "fallback" not in printed


def test_networks_that_miss_most_or_say_one_class_are_called_so_with_their_parents(
    capsys: pytest.CaptureFixture[str],
) -> None:
    _, blind = show(capsys, answers="blind")
    assert "of 80 images of malignant" in blind
    assert "it misses more than it finds" in blind
    _, constant = show(capsys, answers="constant")
    assert f"{', '.join(TARGETS)}: predicts malignant for 160 of 160 images" in constant


def test_what_a_table_shows_does_not_steer_the_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_table(["\x1b[2J"], [["\x1b]0;title\x07"]], title="\x1b[31m")
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert "\x07" not in shown
    assert "\\x1b]0;title\\x07" in shown


def test_what_data_check_lists_does_not_steer_the_terminal(tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    pixels = np.random.default_rng(0).integers(0, 255, (4, 32, 32, 3), dtype=np.uint8)
    for number, image in enumerate(pixels):
        Image.fromarray(image).save(images / f"{number}.png")
    rows = ["image,diagnosis,lesion_id", *(f"{n},n\x1b[2Jv,{n}" for n in range(4))]
    (images / "t.csv").write_text("\n".join([*rows, "\x1b]0;title\x07,mel,9", ""]))
    words = ["data", "check", "--data", str(images), "--workspace", str(tmp_path / "made")]
    done = CliRunner().invoke(cli, words)
    assert done.exit_code == 0, done.output
    assert "\\x1b]0;title" in done.output
    assert "\x1b" not in done.output
