"""A published card contains the findings in each engine file, as that it was emulated."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from lesiontk.backends.stamp import stamp
from lesiontk.evaluate.assessment import Assessment
from lesiontk.evaluate.findings import describe_emulation
from tests.backends.assessments import KNOWN, RESULT
from tests.deploy.bundles import ENGINES
from tests.loose_modules import load_benchmark

EMULATED = describe_emulation("tensorrt:int8", "ONNX Runtime on the CPU")


def test_what_was_found_of_a_file_stands_below_the_table(tmp_path: Path) -> None:
    told = Assessment(KNOWN.operating_point, 1.5, replace(RESULT, findings=(EMULATED,)))
    stamp(ENGINES / "tensorrt_int8.onnx", told, tmp_path / "tensorrt_int8.onnx")
    stamp(ENGINES / "onnx_int8.onnx", KNOWN, tmp_path / "onnx_int8.onnx")
    text = load_benchmark("published_card").describe_files(tmp_path)
    assert text.endswith(
        "\n\n`tensorrt_int8.onnx`: tensorrt:int8 was emulated by ONNX Runtime on the CPU: its "
        "scores are those of the graph."
    )
    assert text.count("emulated") == 1
