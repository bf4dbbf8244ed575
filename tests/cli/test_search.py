"""``lesiontk search``: from the example to the engine that goes into a bundle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

import lesiontk
from lesiontk.cli.main import cli
from lesiontk.errors import LesionTKError
from lesiontk.store import Store
from tests.tiny.recipe import TINY


def call(store: Store, *arguments: object) -> Result:
    environment = {"LESIONTK_WORKSPACE": str(store.workspace)}
    return CliRunner().invoke(
        cli, ["search", *map(str, arguments)], env=environment, catch_exceptions=False
    )


@pytest.fixture(scope="module")
def space(tiny_store: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A space of two engines, searched once."""
    folder = tmp_path_factory.mktemp("space")
    (folder / "tiny.yaml").write_text(yaml.safe_dump({**json.loads(json.dumps(TINY)), "gate": []}))
    document: dict[str, Any] = {
        "recipe": str(folder / "tiny.yaml"),
        "set": {"verify.min_agreement_int8": 0.0},
        "vary": {"target": ["tflite:int8", "tflite:float16"]},
        "objectives": ["balanced_accuracy", "size_mb"],
        "sampler": "grid",
    }
    file = folder / "two.yaml"
    file.write_text(yaml.safe_dump(document))
    done = call(tiny_store, file)
    assert done.exit_code == 0, done.output
    return file


def test_a_search_shows_its_front_and_its_page(tiny_store: Store, space: Path) -> None:
    shown = call(tiny_store, "show").output
    assert "2 trials led to 2 different engines; 2 trials meet all constraints." in shown
    assert "The test images were read once" in shown
    page = tiny_store.workspace / "searches" / "two" / "search.html"
    assert f"page: {page}" in shown
    assert page.is_file()


def test_the_same_command_continues(tiny_store: Store, space: Path) -> None:
    before = tiny_store.list_names()
    done = call(tiny_store, space, "--json")
    document = json.loads(done.stdout)
    assert [trial["state"] for trial in document["trials"]] == ["complete"] * 2
    assert tiny_store.list_names() == before


def test_status_counts_the_trials(tiny_store: Store, space: Path) -> None:
    assert "two: 2 complete; of 2" in call(tiny_store, "status", "two").output
    document = json.loads(call(tiny_store, "status", "--json").stdout)
    assert document["counts"] == {"complete": 2}
    assert document["running"] == []


def test_best_prints_the_reference_alone(tiny_store: Store, space: Path) -> None:
    done = call(tiny_store, "best", "--under", "size_mb <= 0.05")
    assert done.exit_code == 0
    engine = tiny_store.resolve(done.stdout.strip(), "engine")
    assert engine.facts["target"] == "tflite:int8"
    assert "file size (MB)" in done.stderr


def test_python_has_the_same(tiny_store: Store, space: Path) -> None:
    found = lesiontk.Workspace(tiny_store.workspace, progress=False).search(name="two")
    assert (
        found.best(under="size_mb <= 0.05").name
        == call(tiny_store, "best", "--under", "size_mb <= 0.05").stdout.strip()
    )
    table = found.to_pandas()
    assert list(table.columns) == [
        "trial", "state", "on_front", "engine", "target", "balanced_accuracy", "size_mb", "noise",
        "reason",
    ]  # fmt: skip
    assert list(table["target"]) == ["tflite:int8", "tflite:float16"]
    assert {engine.name for engine in found.front} == set(table[table["on_front"]]["engine"])
    assert "2 different engines" in repr(found)
    assert "<table" in found._repr_html_()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(("beest",), "Did you mean 'best'?"), (("absent.yaml",), "does not exist")],
)
def test_a_wrong_call_is_explained(store: Store, arguments: tuple[str, ...], message: str) -> None:
    done = call(store, *arguments)
    assert done.exit_code == 2
    assert message in done.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("show", "other"), "no search 'other'"),
        (("best", "--under", "p90_ms <= 0"), "cannot be met"),
        (("best", "--under", "size_mb <= 0.000001"), "no engine meets all constraints"),
    ],
)
def test_errors_say_what_to_do(
    tiny_store: Store, space: Path, arguments: tuple[str, ...], message: str
) -> None:
    with pytest.raises(LesionTKError, match=message):
        call(tiny_store, *arguments)


def test_init_writes_an_example(store: Store, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    done = call(store, "init", file)
    assert f"lesiontk search {file} --data DIR" in done.stdout
    assert "vary:" in file.read_text()
