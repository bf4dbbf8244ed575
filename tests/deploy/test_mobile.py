"""The apps for phones: what a bundle contains, and that the code reads what the documents hold.

`make test-mobile` compiles and runs their libraries.
"""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lesiontk.backends import open_engine
from lesiontk.deploy import find_bundle_target
from lesiontk.deploy.mobile.target import APPS, Phone
from lesiontk.errors import UsageError
from lesiontk.evaluate import input_checks
from lesiontk.stages.bundle import write_bundle_of_file
from tests.deploy.bundles import ENGINES, PUBLISHED, call_runner, make_bundle

PROJECTS = Path(str(resources.files("lesiontk.deploy.mobile")))
KOTLIN = PROJECTS / "android" / "app" / "src" / "main" / "kotlin" / "com" / "example" / "lesion"
SWIFT = PROJECTS / "ios"
PARTS = {
    "Kotlin, library": sorted((PROJECTS / "android" / "core").rglob("*.kt")),
    "Kotlin, sample": sorted(KOTLIN.rglob("*.kt")),
    "Swift, library": sorted((SWIFT / "Core").glob("*.swift")),
    "Swift, sample": sorted((SWIFT / "App").glob("*.swift")),
}
MOST_LINES = 300
WARNING = "Research software. Not a medical device: do not diagnose with it."


@pytest.fixture(scope="module", params=APPS)
def bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of an engine with input checks, for each kind of phone."""
    folder = tmp_path_factory.mktemp("mobile") / request.param
    target = find_bundle_target(request.param)
    write_bundle_of_file(folder, PUBLISHED / "tflite_int8.tflite", target, threshold=0.4)
    return folder


def find_assets(bundle: Path) -> Path:
    app = APPS[bundle.name]
    return bundle / app.project / app.assets


def read_code(part: str) -> str:
    return "\n".join(path.read_text() for path in PARTS[part])


def count_code(path: Path) -> int:
    """Return the number of lines that are neither blank nor comment alone."""
    lines = (line.strip() for line in path.read_text().splitlines())
    return sum(not line.startswith(("//", "/*", "*")) for line in lines if line)


@pytest.mark.parametrize("part", PARTS)
def test_each_part_is_small(part: str) -> None:
    assert PARTS[part]
    assert 100 < sum(map(count_code, PARTS[part])) < MOST_LINES


def test_the_libraries_need_no_phone() -> None:
    found = {
        part: set(re.findall(r"^import (\S+)", read_code(part), re.MULTILINE))
        for part in ("Kotlin, library", "Swift, library")
    }
    assert found["Swift, library"] == {"Foundation"}
    assert found["Kotlin, library"]
    for name in found["Kotlin, library"]:
        assert name.startswith(("java.", "kotlin.math.", "kotlinx.serialization.json."))


def test_the_samples_use_the_libraries() -> None:
    """Neither Gradle nor CocoaPods is at hand: their files must name each other's folders."""
    android = PROJECTS / "android"
    assert re.findall(r'":(\w+)"', (android / "settings.gradle.kts").read_text()) == ["app", "core"]
    assert 'implementation(project(":core"))' in (android / "app/build.gradle.kts").read_text()
    declared = re.findall(r'id\("(\S+)"\) version', (android / "build.gradle.kts").read_text())
    for module in ("app", "core"):
        used = re.findall(r'id\("(\S+)"\)', (android / module / "build.gradle.kts").read_text())
        assert 0 < len(used) == len(set(used) & set(declared))
    assert "pod 'LesionCore', :path => 'Core'" in (SWIFT / "Podfile").read_text()
    assert "spec.name = 'LesionCore'" in (SWIFT / "Core" / "LesionCore.podspec").read_text()
    library = "\n".join([read_code("Kotlin, library"), read_code("Swift, library")])
    for name in ("androidx", "UIKit", "Interpreter", "R.id"):
        assert name not in library


def test_the_project_is_that_of_the_package_and_names_no_engine(bundle: Path) -> None:
    app = APPS[bundle.name]
    source = PROJECTS / app.project
    files = {path.relative_to(source) for path in source.rglob("*") if path.is_file()}
    written = {
        path.relative_to(bundle / app.project)
        for path in (bundle / app.project).rglob("*")
        if path.is_file() and not path.is_relative_to(find_assets(bundle))
    }
    assert files == written
    for path in files:
        assert (source / path).read_bytes() == (bundle / app.project / path).read_bytes()


def test_the_assets_are_the_bundle_that_the_runner_tests(bundle: Path) -> None:
    assets = find_assets(bundle)
    contract = json.loads((assets / "bundle.json").read_text())
    assert f"Research override: {contract['research_override']}." in contract["notice"]  # shown
    names = ["bundle.json", contract["engine"]["file"], *contract["golden"]["pictures"]]
    names += [input_checks.DOCUMENT, input_checks.ARRAYS]
    for name in names:
        assert (assets / name).read_bytes() == (bundle / name).read_bytes()
    with np.load(bundle / "golden.npz") as golden:
        size = contract["preprocessing"]["image_size"]
        images = np.fromfile(assets / contract["mobile"]["golden_images"], np.uint8)
        assert (images.reshape(-1, size, size, 3) == golden["images"]).all()
        answers = np.fromfile(assets / contract["mobile"]["golden_probabilities"], "<f4")
        assert (answers.reshape(-1, 7) == golden["probabilities"]).all()
        statuses = np.fromfile(assets / contract["mobile"]["golden_statuses"], np.uint8)
        assert (statuses == golden["statuses"]).all()
    named = {*names, *contract["mobile"].values()}
    found = {path.relative_to(assets).as_posix() for path in assets.rglob("*") if path.is_file()}
    assert found == named
    assert call_runner(bundle, "self-test", "--rounds", "0").returncode == 0


def walk(document: Any) -> Iterator[str]:
    """Yield every key of a document."""
    if isinstance(document, dict):
        for key, value in document.items():
            yield key
            yield from walk(value)


def names_read() -> dict[str, set[str]]:
    """Return language -> names that its library reads of the documents."""
    (contract,) = (path for path in PARTS["Kotlin, library"] if path.stem == "Contract")
    kotlin_code = contract.read_text()
    calls = re.findall(r'\b(?:find|get|texts?|number)\(("[^()]*")\)', kotlin_code)
    kotlin = {name for call in calls for name in re.findall(r'"(\w+)"', call)}
    kotlin |= set(re.findall(r'jsonObject\["(\w+)"\]', kotlin_code))
    swift_code = (SWIFT / "Core" / "Contract.swift").read_text()
    fields = re.findall(r"let ([^=\n{}]+)", swift_code)
    swift = {name for field in fields for name in re.findall(r"\b([a-z_]+)[:,]", field)}
    return {"Kotlin": kotlin, "Swift": swift - {"document", "errorDescription"}}


def test_every_name_that_the_code_reads_is_in_the_documents(bundle: Path) -> None:
    assets = find_assets(bundle)
    documents = [json.loads((assets / name).read_text())
                 for name in ("bundle.json", input_checks.DOCUMENT)]  # fmt: skip
    known = {key for document in documents for key in walk(document)}
    read = names_read()
    for language, names in read.items():
        assert not names - known, language
    assert read["Kotlin"] >= {"image_size", "threshold", "golden_statuses", "rest_variance"}
    assert read["Swift"] - read["Kotlin"] <= {"axes", "means", "variances"}


def test_the_arrays_are_in_the_order_in_which_swift_reads_them() -> None:
    """A dictionary of Swift has no order."""
    for path in (PUBLISHED.parent).glob(f"*/input_checks/{input_checks.DOCUMENT}"):
        arrays = json.loads(path.read_text())["domain"]["arrays"]
        assert list(arrays) in ([], ["means", "axes", "variances"])
    assert "let means, axes, variances: [Int]?" in read_code("Swift, library")


@pytest.mark.parametrize("part", ["Kotlin, library", "Swift, library"])
def test_the_checks_are_those_of_the_toolkit(part: str) -> None:
    code = read_code(part)
    rows = re.findall(r'\("(\w+)", "(low|high)", "([^"]+)"\)', code)
    assert {(name, side): reason for name, side, reason in rows} == input_checks.REASONS
    assert [tuple(row[:2]) for row in rows] == list(input_checks.REASONS)
    listed = ", ".join(f'"{status}"' for status in input_checks.STATUSES)
    assert listed in code
    for number in (input_checks.BRIGHT, input_checks.DARK):
        assert re.search(rf"\b{number}\b", code)


def test_the_screens_say_that_it_is_no_medical_device() -> None:
    strings = (PROJECTS / "android/app/src/main/res/values/strings.xml").read_text()
    assert f'<string name="warning">{WARNING}</string>' in strings
    layout = (PROJECTS / "android/app/src/main/res/layout/main.xml").read_text()
    assert "@string/warning" in layout
    assert f'Text("{WARNING}")' in read_code("Swift, sample")
    for part in ("Kotlin, sample", "Swift, sample"):
        assert "contract.notice" in read_code(part)


def test_the_android_app_asks_for_the_camera_alone() -> None:
    main = PROJECTS / "android" / "app" / "src" / "main"
    manifest = ElementTree.parse(main / "AndroidManifest.xml").getroot()
    name = "{http://schemas.android.com/apk/res/android}name"
    asked = [entry.get(name) for entry in manifest.iter("uses-permission")]
    assert asked == ["android.permission.CAMERA"]
    strings = ElementTree.parse(main / "res" / "values" / "strings.xml").getroot()
    defined = {entry.get("name") for entry in strings}
    layout = (main / "res" / "layout" / "main.xml").read_text()
    code = read_code("Kotlin, sample")
    manifest_text = (main / "AndroidManifest.xml").read_text()
    used = set(re.findall(r"@string/(\w+)", layout + manifest_text))
    assert used | set(re.findall(r"R\.string\.(\w+)", code)) == defined
    assert set(re.findall(r"R\.id\.(\w+)", code)) <= set(re.findall(r"@\+id/(\w+)", layout))


def test_the_xcode_project_has_every_file_and_refers_to_nothing_else() -> None:
    text = (SWIFT / "Lesion.xcodeproj" / "project.pbxproj").read_text()
    defined = re.findall(r"^\t\t([0-9A-F]{24}) .*= \{isa", text, re.MULTILINE)
    assert len(defined) == len(set(defined)) == text.count("isa = ")
    assert set(re.findall(r"[0-9A-F]{24}", text)) == set(defined)
    assert text.count("{") == text.count("}")
    listed = set(re.findall(r"sourcecode\.swift; path = (\w+\.swift);", text))
    sample = {path.name for path in PARTS["Swift, sample"]}
    assert listed == sample | {"GoldenTests.swift"}
    (app, tests) = re.findall(r"isa = PBXSourcesBuildPhase;.*?files = \((.*?)\)", text)
    assert set(re.findall(r"(\w+\.swift) in", app)) == sample
    assert set(re.findall(r"(\w+\.swift) in", tests)) == {"GoldenTests.swift"}
    assert "lastKnownFileType = folder; path = Assets;" in text


def test_filters_that_the_apps_lack_are_refused(tmp_path: Path) -> None:
    with open_engine(ENGINES / "tflite_int8.tflite") as engine:
        preprocessing = replace(engine.spec.preprocessing, enhance=("hair_removal",))
        spec = replace(engine.spec, preprocessing=preprocessing)
    with pytest.raises(UsageError, match="with hair_removal; expected crop and resize alone"):
        Phone("ios").add_files(tmp_path, ENGINES / "tflite_int8.tflite", spec)
    assert not list(tmp_path.iterdir())


def test_an_engine_without_input_checks_has_none_in_its_app(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "ios", "tflite_int8.tflite", "ios")
    assets = find_assets(folder)
    contract = json.loads((assets / "bundle.json").read_text())
    assert contract["input_checks"] is contract["mobile"]["golden_statuses"] is None
    assert not list(assets.glob("input_checks.*"))
