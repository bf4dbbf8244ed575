"""With --json a command gives one document on standard output; without, what a person reads."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from lesiontk.backends import BACKENDS
from lesiontk.cli.main import cli
from lesiontk.data.split import hash_split
from lesiontk.recipe import list_recipes, read_recipe
from lesiontk.records import Artefact, Availability
from lesiontk.store import Store
from lesiontk.workflow.plan import plan_recipe
from tests.fake_stages import JoinConfig, JoinStage, TextConfig, TextStage

Run = Callable[..., Result]
FEW = ("--set", "data.split.test=0.2", "--set", "data.split.validation=0.2")


@pytest.fixture
def run(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command that must succeed, in an empty folder, on the workspace of `store`."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")

    def run(*arguments: str) -> Result:
        environment = {"LESIONTK_WORKSPACE": str(store.workspace)}
        result = CliRunner().invoke(cli, arguments, env=environment, catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result

    return run


def read_json(result: Result) -> Any:
    """The one document on standard output; anything before or after it is an error."""
    return json.loads(result.stdout)


@pytest.fixture
def joined(store: Store) -> Artefact:
    """An artefact with a parent; and beside it a stage that failed."""

    def fail(context: object) -> None:
        raise ZeroDivisionError("division by zero")

    with pytest.raises(ZeroDivisionError):
        store.build(TextStage(fail), TextConfig(text="failed"), {})
    text = store.build(TextStage(), TextConfig(), {}, recipe={"name": "probe"})
    return store.build(JoinStage(), JoinConfig(), {"first": text}, recipe={"name": "probe"})


# ------------------------------------------------------------------------------ recipe, doctor


def test_recipe_list_names_every_recipe(run: Run) -> None:
    document = read_json(run("recipe", "list", "--json"))
    assert document == {name: read_recipe(name).description for name in list_recipes()}
    text = run("recipe", "list").stdout
    assert all(name in text and what in text for name, what in document.items())


def test_recipe_show_gives_every_value_with_overrides(run: Run) -> None:
    arguments = ("recipe", "show", "demo", "--set", "train.epochs=3")
    expected = read_recipe("demo", ["train.epochs=3"]).model_dump(mode="json")
    assert read_json(run(*arguments, "--json")) == expected
    named = {name: expected[name] for name in ("name", "description")}
    text = run(*arguments).stdout
    assert {**named, **yaml.safe_load(text)} == expected
    assert expected["train"]["epochs"] == 3


def test_doctor_tells_of_every_back_end(run: Run) -> None:
    document = read_json(run("doctor", "--json"))
    assert [backend["name"] for backend in document["backends"]] == list(BACKENDS)
    for backend in document["backends"]:
        assert backend["available"] or backend["reason"]
        assert [entry["precision"] for entry in backend["precisions"]]
        for entry in backend["precisions"]:
            assert entry["runs"] == backend["runs"]
            assert entry["converts"] or entry["reason"]
    assert document["machine"]["cores"] >= 1
    text = run("doctor").stdout
    assert all(name in text for name in BACKENDS)
    assert document["int8"] in text
    assert document["gpu"] in text
    ran = {part["asked"]: part for b in document["backends"] for part in b["execution"]}
    assert not ran["XNNPACK"]["fell_back"]
    assert not ran["CPUExecutionProvider"]["fell_back"]


def test_doctor_says_what_is_missing_for_a_conversion(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What ONNX is derived from cannot be made; its engines still run."""
    lacking = Availability(False, "the package tensorflow is not installed")
    monkeypatch.setattr(BACKENDS.get("tflite"), "available", lambda self: lacking)
    document = read_json(run("doctor", "--json"))
    onnx = next(backend for backend in document["backends"] if backend["name"] == "onnx")
    assert onnx["available"]
    for entry in onnx["precisions"]:
        assert entry["runs"]
        assert not entry["converts"]
        assert entry["reason"] == "tflite:float32: the package tensorflow is not installed"
    assert "not made here: tflite:float32" in run("doctor").stdout


# ------------------------------------------------------------------------------ ls, lineage


def test_ls_lists_artefacts_and_failures(run: Run, joined: Artefact) -> None:
    document = read_json(run("ls", "--json"))
    assert {a["kind"] for a in document["artefacts"]} == {"text", "joined"}
    assert {a["recipe"] for a in document["artefacts"]} == {"probe"}
    assert document["failures"] == [{"kind": "text", "error": "division by zero"}]
    mine = next(a for a in document["artefacts"] if a["kind"] == "joined")
    assert mine["name"] == joined.name
    assert mine["bytes"] == joined.file("text.txt").stat().st_size
    assert Path(mine["path"]) == joined.path


def test_ls_of_one_kind(run: Run, joined: Artefact) -> None:
    document = read_json(run("ls", "--kind", "joined", "--json"))
    assert [a["name"] for a in document["artefacts"]] == [joined.name]


def test_ls_for_people(run: Run, joined: Artefact) -> None:
    text = run("ls").stdout
    assert joined.name in text
    assert "failed: text: division by zero" in text


def test_ls_of_an_empty_workspace_makes_none(run: Run, store: Store) -> None:
    assert read_json(run("ls", "--json")) == {"artefacts": [], "failures": []}
    assert not store.workspace.exists()


def test_the_option_wins_over_the_environment(run: Run, joined: Artefact, tmp_path: Path) -> None:
    other = str(tmp_path / "other")
    assert read_json(run("ls", "--json", "--workspace", other))["artefacts"] == []


def test_lineage_shows_the_parents(run: Run, store: Store, joined: Artefact) -> None:
    document = read_json(run("lineage", joined.name, "--json"))
    assert document == store.lineage(joined).to_document()
    lines = run("lineage", joined.key[:8]).stdout.splitlines()
    parent = document["parents"]["first"]["name"]
    assert len(lines) == 2
    assert lines[0].startswith(joined.name)
    assert lines[1].startswith(f"  first: {parent}")
    assert "join" in lines[0].removeprefix(joined.name)
    assert "write_text" in lines[1]


# ------------------------------------------------------------------------------ data


def test_data_check_tells_what_is_in_the_folder(
    run: Run, store: Store, synthetic_folder: Path
) -> None:
    result = run("data", "check", "--data", str(synthetic_folder), "--json")
    document = read_json(result)
    assert document["source"] == "synthetic"
    assert document["lesions"] == 38
    assert document["broken"] == document["identical_pixels"] == document["missing_files"] == []
    (inspection,) = store.list_artefacts()
    assert (document["artefact"], document["path"]) == (inspection.name, str(inspection.path))
    assert f"{inspection.name}: stage inspect" in result.stderr


def test_data_check_for_people(run: Run, synthetic_folder: Path) -> None:
    text = run("data", "check", "--data", str(synthetic_folder)).stdout
    assert "images of 38 lesions" in " ".join(text.split())
    assert "broken: none" in text
    assert "licence: synthetic, CC0" in text


def test_data_split_gives_the_split_that_the_table_holds(
    run: Run, store: Store, synthetic_folder: Path
) -> None:
    document = read_json(run("data", "split", "--data", str(synthetic_folder), "--json", *FEW))
    with (Path(document["path"]) / "split.csv").open(newline="") as stream:
        rows = {row["image_id"]: row for row in csv.DictReader(stream)}
    subsets = {name: row["subset"] for name, row in rows.items()}
    labels = {name: row["label"] for name, row in rows.items()}
    assert document["split_hash"] == hash_split(subsets, labels)
    assert sum(map(sum, (c.values() for c in document["images"].values()))) == len(rows)
    assert {a.kind for a in store.list_artefacts()} == {"inspection", "split"}


def test_a_leaky_split_is_made_on_demand_and_says_so(run: Run, synthetic_folder: Path) -> None:
    arguments = ("data", "split", "--data", str(synthetic_folder), "--json", *FEW)
    honest = read_json(run(*arguments))
    result = run(*arguments, "--allow-leaky-split")
    leaky = read_json(result)
    assert (honest["leaky"], honest["lesions_on_several_sides"]) == (False, 0)
    assert leaky["leaky"]
    assert leaky["lesions_on_several_sides"] > 0
    assert leaky["split_hash"] != honest["split_hash"]
    assert "this split leaks" in result.stderr
    steps = read_json(
        run("run", "demo", "--data", str(synthetic_folder), "--allow-leaky-split",
            "--dry-run", "--json")
    )  # fmt: skip
    engines = [step["step"] for step in steps if step["stage"] == "convert"]
    assert engines == ["engine:keras:float32"]


def test_data_split_for_people(run: Run, synthetic_folder: Path) -> None:
    arguments = ("data", "split", "--data", str(synthetic_folder), *FEW)
    split_hash = read_json(run(*arguments, "--json"))["split_hash"]
    text = run(*arguments).stdout
    assert f"hash {split_hash}" in text
    assert all(word in text for word in ("train", "validation", "test", "akiec", "split.csv"))


def test_the_log_goes_to_standard_error_and_can_be_silenced(
    run: Run, synthetic_folder: Path
) -> None:
    arguments = ("data", "check", "--data", str(synthetic_folder), "--json")
    first, again, quiet = run(*arguments), run(*arguments), run(*arguments, "--quiet")
    assert "stage inspect" in first.stderr
    assert "reused" in again.stderr
    assert quiet.stderr == ""
    assert first.stdout == again.stdout == quiet.stdout


# ------------------------------------------------------------------------------ run


def test_a_dry_run_shows_the_plan_and_touches_nothing(run: Run, store: Store) -> None:
    document = read_json(run("run", "demo", "--dry-run", "--json"))
    expected = plan_recipe(read_recipe("demo")).steps
    assert [step["step"] for step in document] == [step.name for step in expected]
    assert not store.workspace.exists()
    assert list(Path.cwd().iterdir()) == []


def test_a_dry_run_for_people(run: Run) -> None:
    lines = run("run", "demo", "--dry-run").stdout.splitlines()
    assert len(lines) == len(plan_recipe(read_recipe("demo")).steps)
    assert lines[0].split() == ["dataset", "synthesize", "from", "-"]
    assert lines[-1].startswith("report")


def test_a_dry_run_takes_data_and_overrides(run: Run, synthetic_folder: Path) -> None:
    arguments = ("run", "demo", "--dry-run", "--json", "--data", str(synthetic_folder))
    document = read_json(run(*arguments, "--set", "convert=[keras:float32]"))
    assert [s["step"] for s in document if s["stage"] == "convert"] == ["engine:keras:float32"]
    assert document[0]["stage"] == "inspect"
