"""Documents with flipped, cut and doubled bytes are read as they were, or refused."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest

from lesiontk.data.tasks import load_task
from lesiontk.errors import LesionTKError
from lesiontk.recipe import dump_recipe, read_recipe
from lesiontk.store import Store
from lesiontk.store.manifest import read_manifest
from tests.fake_stages import JoinConfig, JoinStage, TextConfig, TextStage
from tests.fuzz.mutation import mutate_bytes

TRIES = 400


def check_refusal(error: LesionTKError) -> None:
    assert error.exit_code == 2
    assert 20 < len(str(error)) < 4001
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", str(error))


def test_a_manifest(store: Store) -> None:
    text = store.build(TextStage(), TextConfig(), {}, recipe={"name": "probe"})
    joined = store.build(JoinStage(), JoinConfig(), {"first": text}, recipe={"name": "probe"})
    path = joined.path / "manifest.json"
    whole, content = read_manifest(joined.path), path.read_bytes()
    dice, refused = random.Random(7), 0
    for _ in range(TRIES):
        path.write_bytes(mutate_bytes(content, dice))
        try:
            assert read_manifest(joined.path) == whole  # only spaces were touched
        except LesionTKError as error:
            check_refusal(error)
            refused += 1
        assert {artefact.name for artefact in store.list_artefacts()} <= {text.name, joined.name}
        store.damage(joined.path)
    assert refused > TRIES / 2


def test_a_recipe(tmp_path: Path) -> None:
    content = dump_recipe(read_recipe("demo")).encode()
    path, dice, refused = tmp_path / "mine.yaml", random.Random(7), 0
    for _ in range(TRIES // 4):
        path.write_bytes(mutate_bytes(content, dice))
        try:
            read_recipe(str(path))
        except LesionTKError as error:
            check_refusal(error)
            refused += 1
    assert refused > TRIES / 16


TASK = b"""title: Mole or melanoma
labels: [mel, nv]
positive: [mel]
critical: mel
mapping: {mel: mel, nv: nv, bkl: nv}
"""


def test_a_task(tmp_path: Path) -> None:
    path, dice, refused = tmp_path / "mine.yaml", random.Random(7), 0
    for _ in range(TRIES):
        path.write_bytes(mutate_bytes(TASK, dice))
        try:
            load_task(path)
        except LesionTKError as error:
            check_refusal(error)
            refused += 1
    assert refused > TRIES / 4


@pytest.mark.parametrize("name", [".use_order", ".machine_paths.json"])
def test_the_workspaces_own_files(store: Store, name: str) -> None:
    recipe = {"name": "probe", "data": {"path": "/images"}}
    text = store.build(TextStage(), TextConfig(), {}, recipe=recipe)
    path, dice = store.workspace / name, random.Random(7)
    content = path.read_bytes()
    for _ in range(TRIES // 4):
        path.write_bytes(mutate_bytes(content, dice))
        try:
            assert Store(store.workspace).resolve("latest") == text
            assert store.build(TextStage(), TextConfig(), {}, recipe=recipe).key == text.key
        except LesionTKError as error:
            check_refusal(error)
