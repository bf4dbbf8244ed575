"""What a distribution registers by its entry point is a member like any other, everywhere."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from lesiontk.data.synthetic.dataset import write_synthetic_dataset
from tests.plugin.distribution import install_example, install_plugin

ROOT = Path(__file__).parents[2]
MEASURING_HERE = """
from lesiontk.cli.main import main
from tests.measuring import measuring_here
with measuring_here():
    main()
"""
MEASURING = """
import json, sys
from pathlib import Path
import numpy as np
from lesiontk.bench.measure import measure_engines
from lesiontk.progress import NoProgress
from lesiontk.recipe import BenchRule
rule = BenchRule(rounds=20, queries=2, repeats=0, scenarios=["single_stream"])
images = np.zeros((2, 32, 32, 3), np.uint8)
(one,) = measure_engines({"boxed": Path(sys.argv[1])}, images, rule, NoProgress()).values()
frameworks = [name for name in ("tensorflow", "onnxruntime") if name in sys.modules]
print(json.dumps({"n": one.latency.n, "peak_bytes": one.load.peak_bytes, "frameworks": frameworks}))
"""


def run_python(site: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a process of its own that finds the distributions in `site`."""
    environment = {**os.environ, "PYTHONPATH": f"{site}{os.pathsep}{ROOT}"}
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, env=environment, cwd=ROOT
    )


def run_command(site: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run_python(site, "-m", "lesiontk", *arguments)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of installed distributions: the example plugin's."""
    folder = tmp_path_factory.mktemp("site")
    install_example(folder)
    return folder


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made-up lesions in the layout of the plugin's source."""
    folder = tmp_path_factory.mktemp("images")
    write_synthetic_dataset(folder, lesions=60, image_size=32, seed=4)
    (table,) = folder.glob("*metadata.csv")
    files = {path.stem: str(path.relative_to(folder)) for path in folder.rglob("*.jpg")}
    with table.open(newline="") as stream:
        labels = {
            files[row["image_id"]]: {"diagnosis": row["dx"], "lesion": row["lesion_id"]}
            for row in csv.DictReader(stream)
        }
    table.unlink()
    (folder / "labels.json").write_text(json.dumps(labels))
    return folder


@pytest.fixture(scope="module")
def done(
    site: Path, images: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    """The workspace of a recipe that names each of the plugin's members, and what `run` printed."""
    folder = tmp_path_factory.mktemp("run")
    recipe = {
        "name": "plugged",
        "data": {
            "source": "labels_json",
            "path": str(images),
            "task": "malignancy",
            "image_size": 32,
        },
        "model": {"architecture": "patches"},
        "train": {"epochs": 2, "augment": "none"},
        "compress": [{"round_kernels": {"bits": 8}}],
        "convert": ["boxed:float32", "tflite:float32"],
        "evaluate": {"resamples": 100},
        "bench": {"rounds": 20, "queries": 2, "repeats": 0},
        "explain": {"images": 0},
        "gate": ["g_mean >= parent - 0.5 @ 0.9"],
        "bundle": ["kiosk"],
    }
    (folder / "plugged.yaml").write_text(json.dumps(recipe))
    workspace = folder / "workspace"
    ran = run_python(
        site,
        *("-c", MEASURING_HERE, "run", str(folder / "plugged.yaml")),
        *("--json", "--workspace", str(workspace)),
    )
    assert ran.returncode == 0, ran.stderr
    return workspace, json.loads(ran.stdout)


def find_row(benchmark: dict[str, Any]) -> dict[str, Any]:
    """Return the row of the plugin's engine, not of that of the network before compression."""
    (row,) = (
        row
        for row in benchmark["rows"]
        if row["target"] == "boxed:float32" and not row["reference"]
    )
    return dict(row)


def test_its_engine_is_benchmarked_with_its_metric(done: tuple[Path, dict[str, Any]]) -> None:
    row = find_row(done[1])
    assert 0 <= row["metrics"]["g_mean"]["value"] <= 1
    assert "g_mean" in row["versus_parent"]["differences"]
    assert row["latency_ms"]["median"] > 0


def test_the_processes_that_measure_know_its_engine(
    site: Path, done: tuple[Path, dict[str, Any]]
) -> None:
    """Real ones, which a process starts that has no framework."""
    workspace, benchmark = done
    engine = workspace / find_row(benchmark)["engine"] / "engine.boxed"
    ran = run_python(site, "-c", MEASURING, str(engine))
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    assert found["n"] >= 20
    assert found["peak_bytes"] > 10_000_000
    assert not found["frameworks"]


def test_a_gate_judges_its_metric(done: tuple[Path, dict[str, Any]]) -> None:
    _, benchmark = done
    judged = {verdict["engine"]: verdict for verdict in benchmark["gate"]}
    assert judged["boxed:float32"]["metric"] == "g_mean"
    assert judged["boxed:float32"]["outcome"] in ("passed", "not shown")


def test_the_report_has_its_technique_engine_and_metric(
    done: tuple[Path, dict[str, Any]],
) -> None:
    _, benchmark = done
    page = Path(benchmark["report"]).read_text()
    assert "weights on a grid of 8 bits" in page
    assert "boxed:float32" in page
    assert "g mean" in page
    assert "labels_json" in page


def test_its_bundle_has_its_instructions(done: tuple[Path, dict[str, Any]]) -> None:
    workspace, benchmark = done
    bundle = workspace / benchmark["artefacts"]["bundle:kiosk"]
    assert "switch it on" in (bundle / "README.md").read_text()


def test_its_command_applies_its_technique(site: Path, done: tuple[Path, dict[str, Any]]) -> None:
    workspace, benchmark = done
    options = ["--workspace", str(workspace)]
    trained = benchmark["artefacts"]["model"]
    made = run_command(site, "round-kernels", trained, "--bits", "4", *options)
    assert made.returncode == 0, made.stderr
    assert "weights on a grid of 4 bits; validation balanced accuracy" in made.stdout
    again = run_command(site, "prune", "latest", "--keep-macs", "0.5", *options)
    assert again.returncode == 2
    assert "prune cannot follow round_kernels: the weights lie on a grid" in again.stderr


SUITES = [
    ("techniques", "round_kernels", 5),
    ("metrics", "g_mean", 5),
    ("bundle_targets", "kiosk", 3),
    ("sources", "labels_json", 9),
    ("architectures", "patches", 7),
    ("backends", "boxed", 25),
]
"""Suite, the member that it examines, and at least how many tests it has for it."""


@pytest.fixture(scope="module")
def examined(site: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Outcome of each test that names a member, in one process that has the plugin."""
    results = tmp_path_factory.mktemp("examined") / "results.xml"
    run_python(
        site,
        *("-m", "pytest", "-q", "-p", "tests.plugin.subjects", "-p", "no:cacheprovider"),
        *("-m", "not slow", "-k", " or ".join(member for _, member, _ in SUITES)),
        f"--junitxml={results}",
        *(f"tests/conformance/test_{suite}.py" for suite, _, _ in SUITES),
    )
    return {
        f"{case.attrib['classname']}.{case.attrib['name']}": " ".join(
            f"{child.tag}: {child.text}" for child in case
        )
        for case in ElementTree.parse(results).iter("testcase")
    }


@pytest.mark.parametrize(("suite", "member", "tests"), SUITES)
def test_it_passes_the_conformance_suite(
    examined: dict[str, str], suite: str, member: str, tests: int
) -> None:
    """The same files that examine lesiontk's own; a test that fails or is skipped says why."""
    own = {
        name: said
        for name, said in examined.items()
        if name.startswith(f"tests.conformance.test_{suite}.") and member in name
    }
    assert len(own) >= tests
    assert not {name: said for name, said in own.items() if said}


def test_its_command_is_listed_and_only_where_it_is_installed(site: Path, tmp_path: Path) -> None:
    assert "round-kernels  Round weights to a grid." in run_command(site, "--help").stdout
    assert "round-kernels" not in run_command(tmp_path, "--help").stdout


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (None, "ModuleNotFoundError: No module named 'broken_plugin'"),
        ("import no_such_library", "ModuleNotFoundError: No module named 'no_such_library'"),
        ("register = 7", "TypeError: 'int' object is not callable"),
        (
            "from lesiontk.technique import TECHNIQUES\n"
            "def register():\n    TECHNIQUES.register('prune', 'a:b')\n",
            "ValueError: compression 'prune' is already registered",
        ),
    ],
)
def test_a_plugin_that_cannot_be_loaded_is_named_with_its_distribution(
    module: str | None, message: str, tmp_path: Path
) -> None:
    install_plugin(tmp_path, "lesiontk-broken", "broken_plugin:register")
    if module is not None:
        (tmp_path / "broken_plugin.py").write_text(module)
    ran = run_command(tmp_path, "recipe", "show", "cnn_7class")
    assert ran.returncode == 3
    assert ran.stderr.startswith("error: the plugin lesiontk-broken of lesiontk-broken 1.0")
    assert message in ran.stderr
    assert "Traceback" not in ran.stderr


def test_a_member_that_cannot_be_imported_is_named_with_its_distribution(tmp_path: Path) -> None:
    install_plugin(tmp_path, "lesiontk-hollow", "hollow_plugin:register")
    (tmp_path / "hollow_plugin.py").write_text(
        "from lesiontk.technique import TECHNIQUES\n"
        "def register():\n    TECHNIQUES.register('hollow', 'no_such_module:Hollow')\n"
    )
    ran = run_command(tmp_path, "hollow")
    assert ran.returncode == 3
    assert "compression 'hollow' of the plugin lesiontk-hollow 1.0 cannot be" in ran.stderr
