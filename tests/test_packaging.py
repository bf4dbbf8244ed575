"""The wheel holds everything a user needs outside the repository."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

SCRIPT = """
import json, lesiontk
from importlib import resources
from lesiontk.recipe import list_recipes, read_recipe
from lesiontk.data.tasks import load_task
from lesiontk.data.fetch.sources import list_official_sources
lists = [e.name for e in resources.files("lesiontk.calibration_lists").iterdir()]
print(json.dumps({
    "file": lesiontk.__file__,
    "recipes": {name: read_recipe(name).name for name in list_recipes()},
    "lists": sorted(name for name in lists if name.endswith(".csv")),
    "labels": load_task("malignancy").labels,
    "sources": [source.name for source in list_official_sources()],
    "typed": resources.files("lesiontk").joinpath("py.typed").is_file(),
    "template": [e.name for e in resources.files("lesiontk.report").iterdir()
                 if e.name.endswith(".j2")],
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


def test_a_wheel_finds_its_calibration_lists(installed: dict[str, object]) -> None:
    shipped = sorted(path.name for path in (ROOT / "calibration").glob("*.csv"))
    assert installed["lists"] == shipped
    assert shipped


def test_a_wheel_holds_its_data_files(installed: dict[str, object]) -> None:
    assert installed["labels"] == ["benign", "malignant"]
    assert "ham10000" in installed["sources"]
    assert installed["typed"]
    assert installed["template"]
