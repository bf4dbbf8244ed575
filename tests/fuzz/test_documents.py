"""Damaged recipes, tasks, tables and manifests: an answer or a clear error, never a bug.

Each file is damaged with a fixed seed and given to the command that reads it. Exit 70 is a bug in
lesiontk; 0, 1, 2 and 3 are what the README promises.
"""

from __future__ import annotations

import csv
import json
import random
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path

import pytest

from tests.end_to_end.command_line import Call, call_lesiontk
from tests.fuzz.mutation import mutate_bytes, mutate_text

SECONDS = 30
"""The longest that any command may take on a damaged document, under load."""
MORE_SEEDS = [pytest.param(1, marks=pytest.mark.slow)]
TINY = ("--set", "data.synthetic.lesions=38", "--set", "data.synthetic.image_size=24",
        "--set", "data.image_size=32")  # fmt: skip


@contextmanager
def within(seconds: int) -> Iterator[None]:
    """Fail instead of hanging."""

    def stop(*_: object) -> None:
        raise AssertionError(f"still at work after {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def judge(call: Call, *, received: str) -> None:
    """Fail unless the command ended as the README promises, with a word on what is wrong."""
    assert call.code in (0, 1, 2, 3), f"exit {call.code} for {received!r}\n{call.err[-2000:]}"
    assert "Traceback" not in call.err, f"{received!r}\n{call.err[-2000:]}"
    if call.code:
        assert call.err.strip(), received
        assert len(call.err) < 5000, f"{len(call.err)} characters for {received[:300]!r}"


def recipe_text(name: str) -> str:
    return (resources.files("lesiontk.recipes") / f"{name}.yaml").read_text()


@pytest.mark.parametrize("seed", [0, *MORE_SEEDS, pytest.param(2, marks=pytest.mark.slow)])
def test_damaged_recipes_are_read_or_refused(seed: int, tmp_path: Path) -> None:
    chance = random.Random(seed)
    refused = 0
    for number in range(40):
        name = chance.choice(("demo", "cnn_7class", "efficientnet_lite0_7class"))
        text = mutate_text(recipe_text(name), chance)
        recipe = tmp_path / f"{number}.yaml"
        recipe.write_text(text)
        with within(SECONDS):
            call = call_lesiontk("run", recipe, "--dry-run", "--json", workspace=tmp_path / "w")
        judge(call, received=text)
        refused += call.code != 0
    assert refused  # the damage reaches the reader


def test_damaged_recipe_bytes_are_read_or_refused(tmp_path: Path) -> None:
    chance = random.Random(11)
    content = recipe_text("demo").encode()
    for number in range(40):
        recipe = tmp_path / f"{number}.yaml"
        recipe.write_bytes(mutate_bytes(content, chance))
        with within(SECONDS):
            call = call_lesiontk("recipe", "show", recipe)
        judge(call, received=str(recipe.read_bytes()))


def test_settings_on_the_command_line_are_read_or_refused(tmp_path: Path) -> None:
    chance = random.Random(12)
    keys = (
        "train.epochs", "data.image_size", "convert", "gate", "compress", "data.split.test",
        "calibration.observer", "evaluate.threshold", "name", "model", "nonsense.key", "",
    )  # fmt: skip
    words = (
        "3", "-1", "[]", "{}", "null", "[tflite:int8]", "[[[[[]]]]]", "1e400", "{a: {b: c}}", "*x",
        "é", "9" * 500, "!!python/none", "[{prune: {keep_macs: 2}}]", "\x1b[31m",
    )  # fmt: skip
    for _ in range(60):
        setting = f"{chance.choice(keys)}={chance.choice(words)}"
        with within(SECONDS):
            call = call_lesiontk(
                "run", "demo", "--dry-run", "--set", setting, workspace=tmp_path / "w"
            )
        judge(call, received=setting)
        assert "\x1b[31m" not in call.err


@pytest.fixture(scope="module")
def split_workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with a data set, its inspection and its split."""
    workspace = tmp_path_factory.mktemp("fuzz") / "workspace"
    call = call_lesiontk("data", "split", "demo", *TINY, workspace=workspace)
    assert call.code == 0, call.err
    return workspace


@pytest.mark.parametrize("seed", [0, *MORE_SEEDS])
def test_a_damaged_manifest_is_never_believed(
    seed: int, split_workspace: Path, tmp_path: Path
) -> None:
    chance = random.Random(seed)
    workspace = tmp_path / "w"
    for _ in range(20):
        shutil.rmtree(workspace, ignore_errors=True)
        shutil.copytree(split_workspace, workspace)
        manifest = chance.choice(sorted(workspace.glob("*/manifest.json")))
        before = manifest.read_text()
        damaged = (
            mutate_text(before, chance)
            if chance.random() < 0.6
            else mutate_bytes(before.encode(), chance).decode(errors="replace")
        )
        manifest.write_text(damaged)
        for words in (("ls",), ("verify", manifest.parent.name), ("lineage", manifest.parent.name)):
            with within(SECONDS):
                call = call_lesiontk(*words, workspace=workspace)
            judge(call, received=damaged)
            if words[0] == "verify" and call.code == 0:
                assert _same_where_it_counts(before, damaged), damaged
        with within(SECONDS):
            judge(
                call_lesiontk("data", "split", "demo", *TINY, workspace=workspace), received=damaged
            )


OUTSIDE_CONTENT = ("created", "seconds", "environment", "recipe", "used")
"""Keys of a manifest that the content hash leaves out: when and where it was made, for what."""


def _same_where_it_counts(before: str, after: str) -> bool:
    first, second = json.loads(before), json.loads(after)
    return all(first[key] == second.get(key) for key in first if key not in OUTSIDE_CONTENT)


@pytest.mark.parametrize("seed", [0, *MORE_SEEDS])
def test_damaged_tables_are_read_or_refused(
    seed: int, synthetic_folder: Path, tmp_path: Path
) -> None:
    chance = random.Random(seed)
    folder = tmp_path / "data"
    shutil.copytree(synthetic_folder, folder)
    (table,) = folder.glob("*_metadata.csv")
    content = table.read_text()
    for number in range(15):
        if chance.random() < 0.7:
            table.write_text(mutate_text(content, chance))
        else:
            table.write_bytes(mutate_bytes(content.encode(), chance))
        with within(SECONDS):
            call = call_lesiontk(
                "data", "split", "cnn_7class", "--data", folder, "--set", "data.image_size=32",
                workspace=tmp_path / "w",
            )  # fmt: skip
        judge(call, received=f"{seed}/{number}: {table.read_bytes()[:3000]!r}")
        if call.code == 0:
            _assert_no_lesion_on_two_sides(tmp_path / "w")


def _assert_no_lesion_on_two_sides(workspace: Path) -> None:
    for path in workspace.glob("split-*/split.csv"):
        subsets: dict[str, set[str]] = {}
        with path.open(newline="") as stream:
            for row in csv.DictReader(stream):
                subsets.setdefault(row["lesion_id"], set()).add(row["subset"])
        assert all(len(found) == 1 for found in subsets.values())
