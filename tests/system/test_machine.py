"""The machine is described by what a figure depends on, and never named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lesiontk.system import machine
from lesiontk.system.machine import (
    INT8_FEATURES,
    describe_machine,
    explain_int8,
    explain_precision,
)

INTEL = """processor\t: 0
model name\t: A Processor @ 2.40GHz
flags\t\t: fpu sse2 avx2 avx512f avx512_vnni

processor\t: 1
model name\t: A Processor @ 2.40GHz
flags\t\t: fpu sse2 avx2 avx512f avx512_vnni
"""
RASPBERRY = """processor\t: 0
Features\t: fp asimd aes asimddp

Model\t\t: Raspberry Pi 5 Model B Rev 1.0
"""


@pytest.fixture
def cpuinfo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What stands in the place of /proc/cpuinfo."""
    path = tmp_path / "cpuinfo"
    monkeypatch.setattr(machine, "Path", lambda name: path)
    return path


@pytest.mark.parametrize(
    ("text", "processor", "features"),
    [
        (INTEL, "A Processor @ 2.40GHz", ["avx2", "avx512f", "avx512_vnni"]),
        (RASPBERRY, "Raspberry Pi 5 Model B Rev 1.0", ["asimddp"]),
    ],
)
def test_the_processor_and_its_int8_features_are_read(
    cpuinfo: Path, text: str, processor: str, features: list[str]
) -> None:
    cpuinfo.write_text(text)
    received = describe_machine()
    assert received.processor == processor
    assert received.int8_features == tuple(features)


def test_a_system_without_cpuinfo_is_described_too(cpuinfo: Path) -> None:
    received = describe_machine()
    assert received.processor
    assert received.int8_features == ()


def test_this_machine_is_described_and_not_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.node", lambda: "name-of-this-machine")
    received = describe_machine()
    assert set(received.to_document()) == {
        "processor",
        "architecture",
        "cores",
        "memory_bytes",
        "system",
        "python",
        "int8_features",
        "accelerators",
    }
    assert received.cores is not None
    assert received.cores >= 1
    assert received.memory_bytes is not None
    assert received.memory_bytes > 2**20
    assert set(received.int8_features) <= set(INT8_FEATURES)
    assert "name-of-this-machine" not in json.dumps(received.to_document())


@pytest.mark.parametrize("feature", ["avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm"])
def test_dot_products_make_int8_fast_and_exact(feature: str) -> None:
    sentence = explain_int8(["avx2", feature], "x86_64")
    assert "multiplies int8 directly" in sentence
    assert "fast and exact" in sentence


def test_an_x86_without_them_is_warned_of_saturation() -> None:
    for architecture in ("x86_64", "AMD64"):
        assert "saturate in 16 bits" in explain_int8(["avx2", "avx512f"], architecture)


def test_an_arm_without_them_is_slower_and_right() -> None:
    sentence = explain_int8([], "aarch64")
    assert "gains less speed" in sentence
    assert "exact" in sentence
    assert "saturate" not in sentence


@pytest.mark.parametrize(
    ("precision", "word"),
    [("int8", "directly"), ("dynamic_int8", "directly"), ("int16x8", "accuracy, not speed"),
     ("float16", "not faster"), ("float32", "")],
)  # fmt: skip
def test_what_a_cpu_does_with_each_precision(precision: str, word: str) -> None:
    sentence = explain_precision(precision, ["avx_vnni"], "x86_64")
    assert word in sentence
    assert bool(sentence) == bool(word)
