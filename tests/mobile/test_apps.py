"""The apps' libraries, compiled and run on golden vectors and on the toolkit's own answers.

`make test-mobile` sets the compilers up. What needs Android or Apple's frameworks is type-checked
against declarations (Kotlin) or parsed (Swift) here; it is neither built nor run.
"""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.mobile.cases import Expected, write_cases
from tests.mobile.compilers import HERE, KOTLIN, PROJECTS, SWIFT, Kotlin, Swift

LANGUAGES = {"kotlin": Kotlin, "swift": Swift}
LABELS = re.compile(r"^(\w+) (\d\.\d{3})$", re.MULTILINE)


@pytest.fixture(scope="module")
def tools() -> Path:
    folder = os.environ.get("LESIONTK_MOBILE")
    if folder is None:
        pytest.skip("`make test-mobile` compiles and runs the apps' libraries")
    return Path(folder).resolve()


@pytest.fixture(scope="module")
def prepared(tools: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Expected]:
    work = tmp_path_factory.mktemp("mobile")
    return work, write_cases(work / "cases")


@pytest.fixture(scope="module", params=LANGUAGES)
def answers(
    request: pytest.FixtureRequest, tools: Path, prepared: tuple[Path, Expected]
) -> Expected:
    """What the program in a language prints on the cases."""
    work, _ = prepared
    command = LANGUAGES[request.param](tools).build(work)
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: Expected = json.loads(done.stdout)
    return found


@pytest.fixture
def pairs(
    request: pytest.FixtureRequest, prepared: tuple[Path, Expected], answers: Expected
) -> list[tuple[Any, Any]]:
    """Expected and received, of the kind that the test's parameter names."""
    kind = request.param
    assert len(prepared[1][kind]) >= 10
    return list(zip(prepared[1][kind], answers[kind], strict=True))


def of(kind: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("pairs", [kind], indirect=True)


@of("resize")
def test_crop_and_resize_are_the_same_bytes(pairs: list[tuple[str, str]]) -> None:
    assert [received for _, received in pairs] == [expected for expected, _ in pairs]
    assert len({expected for expected, _ in pairs}) == len(pairs)


@of("decisions")
def test_decisions_are_the_same_also_on_the_threshold(pairs: list[tuple[Any, Any]]) -> None:
    for expected, received in pairs:
        assert received["label"] == expected["label"]
        assert received["positive"] == expected.get("positive")
        score = received["score"]
        assert (score if score is None else round(score, 6)) == expected.get("score")
        check_screen(received["shown"], expected)
    assert {expected.get("positive") for expected, _ in pairs} == {True, False, None}


def check_screen(shown: str, decision: dict[str, Any]) -> None:
    """Compare what the screen shows with a decision: the verdict, then ranked probabilities."""
    if "positive" not in decision:
        first = decision["label"]
    else:
        first = "Positive" if decision["positive"] else "Negative"
    assert shown.startswith(f"{first}\n")
    rows = LABELS.findall(shown)
    assert dict(rows).keys() == decision["probabilities"].keys()
    values = [float(value) for _, value in rows]
    assert values == sorted(values, reverse=True)
    for label, value in rows:
        assert float(value) == pytest.approx(decision["probabilities"][label], abs=5.1e-4)


@of("checks")
def test_input_checks_have_the_same_status_and_reasons(pairs: list[tuple[Any, Any]]) -> None:
    for expected, received in pairs:
        assert received["status"] == expected["status"]
        assert received["reasons"] == expected["reasons"]
        assert received["measures"].keys() == expected["measures"].keys()
        for name, value in expected["measures"].items():  # rounded to four digits
            measured = float(received["measures"][name])
            same = math.isclose(measured, value, rel_tol=1e-9, abs_tol=5.1e-5)
            assert same or (math.isnan(value) and math.isnan(measured)), name
    found = [expected["status"] for expected, _ in pairs]
    assert min(map(found.count, ("accepted", "poor_quality", "out_of_domain"))) >= 20
    assert any(math.isnan(expected["measures"]["domain"]) for expected, _ in pairs)


@of("answers")
def test_a_refusal_is_shown_instead_of_the_probabilities(pairs: list[tuple[Any, Any]]) -> None:
    refused = 0
    for expected, shown in pairs:
        if expected["input"]["status"] == "accepted":
            check_screen(shown, expected)
            assert f"threshold of {expected['point']['threshold']:.3f}." in shown
        else:
            refused += 1
            assert shown == f"Refused: {'; '.join(expected['input']['reasons'])}."
    assert 20 <= refused <= len(pairs) - 20


@of("self_tests")
def test_the_self_test_passes_and_finds_each_fault(
    pairs: list[tuple[str | None, str | None]],
) -> None:
    for fault, message in pairs:
        assert (message is None) == (fault is None), message
        assert fault is None or fault in str(message)
    assert sum(fault is None for fault, _ in pairs) == 2


def write_declarations(folder: Path) -> Iterator[Path]:
    """Write the declarations of the frameworks and the app's own resources; yield the files."""
    text = (HERE / "android_declarations.txt").read_text()
    resources = PROJECTS / "android" / "app" / "src" / "main" / "res"
    ids = re.findall(r"@\+id/(\w+)", (resources / "layout" / "main.xml").read_text())
    strings = re.findall(r'string name="(\w+)"', (resources / "values" / "strings.xml").read_text())
    lines = ["package com.example.lesion", "object R {", "object layout { const val main = 0 }"]
    for kind, names in (("id", ids), ("string", strings)):
        lines += [f"object {kind} {{", *(f"const val {name} = 0" for name in names), "}"]
    for number, part in enumerate([*text.split("---\n"), "\n".join([*lines, "}"])]):
        path = folder / f"declarations_{number}.kt"
        path.write_text(part)
        yield path


def test_the_android_part_fits_the_declarations(tools: Path, tmp_path: Path) -> None:
    compiler = Kotlin(tools)
    test = PROJECTS / "android" / "app" / "src" / "androidTest" / "kotlin"
    core = compiler.build_core(tmp_path)
    sources = [*KOTLIN.glob("*.kt"), *test.rglob("*.kt"), *write_declarations(tmp_path)]
    assert len(sources) >= 20
    assert compiler.compile(sources, tmp_path / "classes", core) == ""
    damaged = tmp_path / "MainActivity.kt"
    text = (KOTLIN / "MainActivity.kt").read_text()
    damaged.write_text(text.replace("plane.rowStride", "plane.pixelStride.toLong()"))
    sources[sources.index(KOTLIN / "MainActivity.kt")] = damaged
    assert "argument type mismatch" in compiler.compile(sources, tmp_path / "classes", core).lower()


def test_the_ios_part_parses(tools: Path, tmp_path: Path) -> None:
    compiler = Swift(tools)
    sources = [*(SWIFT / "App").glob("*.swift"), *(SWIFT / "Tests").glob("*.swift")]
    assert len(sources) == 5
    assert compiler.compile(sources, tmp_path, "-parse") == ""
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    shutil.copyfile(SWIFT / "App" / "Camera.swift", damaged / "Camera.swift")
    with (damaged / "Camera.swift").open("a") as stream:
        stream.write("}\n")
    assert "extraneous '}'" in compiler.compile([damaged / "Camera.swift"], tmp_path, "-parse")
