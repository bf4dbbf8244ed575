"""The wheel holds everything a user needs; the lock has it for each platform and Python."""

from __future__ import annotations

import configparser
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]

SCRIPT = """
import json, lesiontk
from importlib import resources
from pathlib import Path
from lesiontk.recipe import list_recipes, read_recipe
from lesiontk.data.tasks import load_task
from lesiontk.data.fetch.sources import list_official_sources
lists = [e.name for e in resources.files("lesiontk.calibration_lists").iterdir()]
mobile = Path(str(resources.files("lesiontk.deploy.mobile")))
print(json.dumps({
    "file": lesiontk.__file__,
    "recipes": {name: read_recipe(name).name for name in list_recipes()},
    "lists": sorted(name for name in lists if name.endswith(".csv")),
    "labels": load_task("malignancy").labels,
    "sources": [source.name for source in list_official_sources()],
    "typed": resources.files("lesiontk").joinpath("py.typed").is_file(),
    "template": [e.name for e in resources.files("lesiontk.report").iterdir()
                 if e.name.endswith(".j2")],
    "page": [e.name for e in resources.files("lesiontk.deploy.web").joinpath("page").iterdir()],
    "web": [e.name for e in resources.files("lesiontk.deploy.web").iterdir()],
    "mobile": sorted(path.relative_to(mobile).as_posix() for path in mobile.glob("*/**/*")
                     if path.is_file()),
}))
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """What a wheel knows of itself, installed apart and asked from another folder."""
    folder = tmp_path_factory.mktemp("wheel")
    # A copy, for setuptools leaves build folders in the source.
    source = folder / "source"
    tracked = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    ).stdout.split()  # fmt: skip
    for name in tracked:
        if (ROOT / name).is_file() and not name.startswith(("tests/", "benchmarks/")):
            target = source / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((ROOT / name).read_bytes())
    build = [sys.executable, "-m", "build", "--no-isolation", "--wheel", "-o", str(folder)]
    subprocess.run([*build, str(source)], check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    site = folder / "site"
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(site)]
    subprocess.run([*install, str(wheel)], check=True, capture_output=True)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(site)},
        check=True,
        capture_output=True,
        text=True,
    )
    document: dict[str, object] = json.loads(done.stdout)
    assert str(document["file"]).startswith(str(site))
    return document


def test_a_wheel_finds_its_recipes(installed: dict[str, object]) -> None:
    shipped = {path.stem for path in (ROOT / "recipes").glob("*.yaml")}
    assert set(installed["recipes"]) == shipped
    assert all(name == called for name, called in installed["recipes"].items())


def test_a_wheel_holds_the_web_app(installed: dict[str, list[str]]) -> None:
    folder = ROOT / "toolkit" / "lesiontk" / "deploy" / "web"
    assert set(installed["page"]) == {path.name for path in (folder / "page").iterdir()}
    assert {"package.json", "package-lock.json"} <= set(installed["web"])


def test_a_wheel_holds_the_projects_of_the_apps(installed: dict[str, list[str]]) -> None:
    folder = ROOT / "toolkit" / "lesiontk" / "deploy" / "mobile"
    files = (path for app in ("android", "ios") for path in (folder / app).rglob("*"))
    expected = sorted(path.relative_to(folder).as_posix() for path in files if path.is_file())
    assert [name for name in installed["mobile"] if "__pycache__" not in name] == expected
    assert len(expected) > 25


def test_a_wheel_finds_its_calibration_lists(installed: dict[str, object]) -> None:
    shipped = sorted(path.name for path in (ROOT / "calibration").glob("*.csv"))
    assert installed["lists"] == shipped
    assert shipped


def test_a_wheel_holds_its_data_files(installed: dict[str, object]) -> None:
    assert installed["labels"] == ["benign", "malignant"]
    assert "ham10000" in installed["sources"]
    assert installed["typed"]
    assert installed["template"]


PLATFORMS = {
    "Linux x86-64": {"sys_platform": "linux", "os_name": "posix", "platform_machine": "x86_64"},
    "Linux ARM64": {"sys_platform": "linux", "os_name": "posix", "platform_machine": "aarch64"},
    "macOS ARM64": {"sys_platform": "darwin", "os_name": "posix", "platform_machine": "arm64"},
}
PYTHONS = ("3.11", "3.12", "3.13")
SETUP = configparser.ConfigParser()
SETUP.read(ROOT / "setup.cfg")
LOCK = (ROOT / "requirements.lock").read_text()


def locked_for(platform: str, python: str) -> dict[str, Version]:
    """Return what `make setup` installs on a platform: name -> version."""
    environment = {
        **PLATFORMS[platform],
        "python_version": python,
        "python_full_version": f"{python}.0",
    }
    found = {}
    for line in re.findall(r"^[a-z0-9].*?(?= \\$)", LOCK, flags=re.MULTILINE):
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate(environment):
            assert requirement.name not in found, f"{requirement.name} is locked twice"
            (pin,) = requirement.specifier
            found[canonicalize_name(requirement.name)] = Version(pin.version)
    return found


def requirements_of_setup() -> list[Requirement]:
    extras = SETUP["options.extras_require"]
    lines = (SETUP["options"]["install_requires"], extras["dev"], extras["docs"])
    return [Requirement(line) for text in lines for line in text.split("\n") if line]


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("platform", PLATFORMS)
def test_the_lock_has_what_setup_needs_on_each_platform(platform: str, python: str) -> None:
    locked = locked_for(platform, python)
    environment = {**PLATFORMS[platform], "python_version": python}
    for requirement in requirements_of_setup():
        if requirement.marker is None or requirement.marker.evaluate(environment):
            version = locked.get(canonicalize_name(requirement.name))
            assert version is not None, f"{requirement.name} is not in the lock: run `make lock`"
            assert version in requirement.specifier, requirement
    tensorrt = [name for name in locked if name.startswith("tensorrt")]
    assert bool(tensorrt) == (platform == "Linux x86-64")


def test_every_locked_package_has_hashes_and_no_host_is_named() -> None:
    entries = re.split(r"^(?=[a-z0-9])", LOCK, flags=re.MULTILINE)[1:]
    assert len(entries) > 50
    for entry in entries:
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", entry), entry.partition(" ")[0]
    assert "://" not in LOCK
    assert "index-url" not in LOCK


def test_one_list_of_pythons() -> None:
    classifiers = re.findall(r":: Python :: (3\.\d+)", SETUP["metadata"]["classifiers"])
    assert tuple(classifiers) == PYTHONS
    supported = SpecifierSet(SETUP["options"]["python_requires"])
    assert [f"3.{minor}" for minor in range(9, 20) if f"3.{minor}" in supported] == list(PYTHONS)
    makefile = (ROOT / "Makefile").read_text()
    assert f"for v in {' '.join(reversed(PYTHONS))}; do" in makefile  # the newest first
    assert f"for python in {' '.join(PYTHONS)}; do" in makefile


@pytest.mark.parametrize(
    ("starting", "taken"),
    [({"3.11", "3.12", "3.13"}, "3.13"), ({"3.11", "3.12"}, "3.12"), ({"3.11"}, "3.11")],
)
def test_make_takes_the_newest_python_that_starts(
    starting: set[str], taken: str, tmp_path: Path
) -> None:
    """A version manager's name for a Python that is not installed is on the path and fails."""
    for python in PYTHONS:
        program = tmp_path / f"python{python}"
        program.write_text(f"#!/bin/sh\nexit {int(python not in starting)}\n")
        program.chmod(0o755)
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHON", "VENV", "MAKEFLAGS")}
    done = subprocess.run(
        ["make", "--dry-run", "setup", f"VENV={tmp_path}/venv"],
        cwd=ROOT, env={**environment, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert f"python{taken} -m venv {tmp_path}/venv\n" in done.stdout


def test_the_page_on_installing_names_each_platform_and_python() -> None:
    rows = [
        line for line in (ROOT / "docs" / "install.md").read_text().splitlines()
        if line.startswith(("| Linux", "| macOS"))
    ]  # fmt: skip
    for platform in ("Linux x86-64", "Linux ARM64", "macOS"):
        named = " ".join(row for row in rows if platform in row)
        assert [python for python in PYTHONS if python in named] == list(PYTHONS), platform


def test_no_ignored_file_is_tracked() -> None:
    """Such as node_modules, which a commit took before it was ignored."""
    if not (ROOT / ".git").exists():
        pytest.skip("the sources are no git checkout")
    command = ["git", "ls-files", "--cached", "--ignored", "--exclude-standard"]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout == ""
