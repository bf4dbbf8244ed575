"""Web bundles: what goes into one, where its runtime comes from, and what is refused.

`make test-web` runs one in a browser.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import tarfile
import zlib
from dataclasses import replace
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from lesiontk.backends import open_engine
from lesiontk.cli.main import cli
from lesiontk.deploy import find_bundle_target
from lesiontk.deploy.web import runtime
from lesiontk.deploy.web.page import draw_icon
from lesiontk.deploy.web.target import Web
from lesiontk.errors import DataError, MissingRequirementError, UsageError
from lesiontk.stages.bundle import open_target, write_bundle_of_file
from tests.deploy.bundles import ENGINES, call_runner

ENGINE = ENGINES / "tflite_int8.tflite"
PAGE = resources.files("lesiontk.deploy.web").joinpath("page")


def make_archive(folder: Path, package: runtime.Package) -> runtime.Package:
    """Write an archive with the files that a bundle takes; return the package with its hash."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        for name in runtime.FILES[package.name]:
            entry = tarfile.TarInfo(f"package/{name}")
            entry.size = len(name)
            archive.addfile(entry, io.BytesIO(name.encode()))
    (folder / package.archive).write_bytes(content.getvalue())
    digest = base64.b64encode(hashlib.sha512(content.getvalue()).digest()).decode()
    return replace(package, integrity=f"sha512-{digest}")


@pytest.fixture
def archives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Archives as npm packs them, with other content, and a lock that names them."""
    folder = tmp_path / "archives"
    folder.mkdir()
    packages = tuple(make_archive(folder, package) for package in runtime.read_packages())
    monkeypatch.setattr(runtime, "read_packages", lambda: packages)
    return folder


@pytest.fixture
def bundle(tmp_path: Path, archives: Path) -> Path:
    folder = tmp_path / "bundle"
    write_bundle_of_file(folder, ENGINE, open_target("web", archives), threshold=0.4)
    return folder


def read_list(bundle: Path) -> dict[str, str]:
    text = (bundle / "files.js").read_text()
    files: dict[str, str] = json.loads(text.removeprefix("self.BUNDLE = ").rstrip(";\n"))["files"]
    return files


def test_the_page_lists_every_file_that_it_asks_for(bundle: Path) -> None:
    listed = read_list(bundle)
    for name, digest in listed.items():
        assert hashlib.sha256((bundle / name).read_bytes()).hexdigest() == digest
    sources = [path.name for path in PAGE.iterdir() if path.name != "service-worker.js"]
    assert set(sources) <= set(listed)
    contract = json.loads((bundle / "bundle.json").read_text())
    named = [contract["engine"]["file"], *contract["golden"]["pictures"]]
    named += [contract["web"]["golden_images"], contract["web"]["golden_probabilities"]]
    icons = json.loads((bundle / "manifest.webmanifest").read_text())["icons"]
    named += ["bundle.json", *(icon["src"] for icon in icons)]
    named += [f"runtime/{to}" for files in runtime.FILES.values() for to in files.values()]
    assert set(named) <= set(listed)
    assert not any(name.endswith((".py", ".npz", "service-worker.js")) for name in listed)


def test_the_checksums_cover_page_and_runtime(bundle: Path) -> None:
    listed = (bundle / "SHA256SUMS").read_text()
    for name in ("files.js", "service-worker.js", "index.html", *read_list(bundle)):
        assert f"  {name}\n" in listed
    assert call_runner(bundle, "self-test", "--rounds", "0").returncode == 0


def test_the_engine_goes_unchanged_and_its_golden_answers_as_plain_bytes(bundle: Path) -> None:
    with open_engine(bundle / ENGINE.name) as engine, np.load(bundle / "golden.npz") as golden:
        images = zlib.decompress((bundle / "golden_images.zlib").read_bytes())
        assert images == golden["images"].tobytes()
        plain = np.fromfile(bundle / "golden_probabilities.f32", "<f4")
        assert np.array_equal(plain, golden["probabilities"].ravel())
        assert engine.spec.precision == "int8"


def test_the_runtime_is_that_of_the_lock(bundle: Path) -> None:
    contract = json.loads((bundle / "bundle.json").read_text())
    found = {(name, entry["version"]) for name, entry in contract["web"]["runtime"].items()}
    assert found == {(p.name, p.version) for p in runtime.read_packages()}
    for package, files in runtime.FILES.items():
        for name, place in files.items():
            assert (bundle / "runtime" / place).read_text() == name, package


def test_an_archive_that_differs_is_refused_and_nothing_is_left(
    archives: Path, tmp_path: Path
) -> None:
    (changed, *_) = archives.iterdir()
    content = bytearray(changed.read_bytes())
    content[len(content) // 2] ^= 1
    changed.write_bytes(content)
    with pytest.raises(DataError, match=r"has the sha512 .*; expected .* in the lock file"):
        write_bundle_of_file(tmp_path / "out", ENGINE, open_target("web", archives))
    changed.unlink()
    with pytest.raises(DataError, match=r"`npm pack @litertjs/.*` writes it"):
        write_bundle_of_file(tmp_path / "out", ENGINE, open_target("web", archives))
    assert not (tmp_path / "out").exists()


def write_npm(folder: Path, script: str) -> None:
    folder.mkdir()
    (folder / "npm").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "npm").chmod(0o755)


def test_npm_packs_what_the_lock_names(
    archives: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "words"
    write_npm(tmp_path / "bin", f'echo "$@" > {log}\n/bin/cp {archives}/*.tgz .')
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    runtime.write_runtime(tmp_path / "runtime")
    assert (tmp_path / "runtime" / "core" / "index.js").is_file()
    wanted = [f"{package.name}@{package.version}" for package in runtime.read_packages()]
    assert log.read_text().split() == ["pack", "--ignore-scripts", *wanted]


@pytest.mark.parametrize(
    ("script", "message"),
    [
        (None, "npm is not installed"),
        ("echo 'npm error network is down' >&2; exit 1", "cannot fetch .*: npm error network is"),
    ],
)
def test_without_npm_or_network_it_says_how_to_bring_the_runtime(
    script: str | None, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if script is not None:
        write_npm(tmp_path / "bin", script)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(MissingRequirementError, match=f"{message}.*--runtime DIR"):
        runtime.write_runtime(tmp_path / "runtime")


def test_the_lock_has_a_hash_of_each_package_and_no_address() -> None:
    text = resources.files("lesiontk.deploy.web").joinpath("package-lock.json").read_text()
    assert "://" not in text
    assert [p.name for p in runtime.read_packages()] == list(runtime.FILES)
    assert all(p.integrity.startswith("sha512-") for p in runtime.read_packages())
    wanted = json.loads(resources.files("lesiontk.deploy.web").joinpath("package.json").read_text())
    versions = {p.name: p.version for p in runtime.read_packages()}
    assert versions.items() >= wanted["dependencies"].items()


def test_the_policy_permits_own_files_and_the_import_map_alone() -> None:
    page = PAGE.joinpath("index.html").read_text(encoding="utf-8")
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', page)
    (inline,) = re.findall(r'<script type="importmap">(.*?)</script>', page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules.pop("script-src") == f"'self' 'wasm-unsafe-eval' 'sha256-{digest}'"
    assert rules.pop("img-src") == "'self' data:"
    assert rules["default-src"] == "'none'"
    assert set(rules.values()) == {"'self'", "'none'"}
    assert "style=" not in page


def test_filters_that_the_page_lacks_are_refused(tmp_path: Path) -> None:
    with open_engine(ENGINE) as engine:
        preprocessing = replace(engine.spec.preprocessing, enhance=("hair_removal",))
        spec = replace(engine.spec, preprocessing=preprocessing)
    with pytest.raises(UsageError, match="with hair_removal; expected crop and resize alone"):
        Web("web").add_files(tmp_path, ENGINE, spec)
    assert not list(tmp_path.iterdir())


def test_another_target_takes_no_runtime(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"bundles for android do not contain one.*--target web"):
        open_target("android", tmp_path)


def test_a_board_serves_the_same_page_without_a_runtime(tmp_path: Path) -> None:
    write_bundle_of_file(tmp_path / "board", ENGINE, find_bundle_target("linux-arm64"))
    web = tmp_path / "board" / "web"
    for path in PAGE.iterdir():
        assert (web / path.name).read_bytes() == path.read_bytes()
    contract = (web / "bundle.json").read_bytes()
    assert contract == (tmp_path / "board" / "bundle.json").read_bytes()
    assert "web" not in json.loads(contract)


def test_the_command_says_how_to_open_it(archives: Path, tmp_path: Path) -> None:
    out = tmp_path / "app"
    words = [
        "bundle",
        str(ENGINE),
        "--research-override",
        "--target",
        "web",
        "--runtime",
        str(archives),
    ]
    done = CliRunner().invoke(cli, [*words, "--out", str(out)])
    assert done.exit_code == 0, done.output
    lines = " ".join(done.output.split())
    assert "python -m http.server --bind 127.0.0.1 --directory" in lines


@pytest.mark.parametrize("size", [192, 512])
def test_an_icon_is_square_and_opaque(size: int) -> None:
    icon = draw_icon(size)
    assert (icon.size, icon.mode) == ((size, size), "RGB")
    middle = icon.getpixel((size // 2, size // 2))
    assert middle != icon.getpixel((0, 0)) == icon.getpixel((size - 1, size - 1))
