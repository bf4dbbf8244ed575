"""A workspace that came from elsewhere makes lesiontk write into no other folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lesiontk.errors import DataError
from lesiontk.store import Store
from tests.fake_stages import TextConfig, TextStage

WRITTEN = (
    ".locks",
    ".locks/use_order",
    ".locks/machine_paths",
    ".scratch",
    ".scratch/text-0123456789ab",
    ".scratch/text-0123456789ab/state.tmp",
    ".use_order",
    ".use_order.tmp",
    ".machine_paths.tmp",
    ".text-0123456789ab.tmp",
    "text-0123456789ab/manifest.json.tmp",
    "workers/1",
)


@pytest.mark.parametrize("name", WRITTEN)
def test_a_link_in_the_place_of_an_own_file_is_refused(
    name: str, store: Store, tmp_path: Path
) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    path = store.workspace / name
    path.parent.mkdir(parents=True)
    path.symlink_to(victim)
    with pytest.raises(DataError, match=f"{path} is a symbolic link; .* Remove it"):
        store.build(TextStage(), TextConfig(), {}, recipe={"path": "/images"})
    assert victim.read_text() == "precious"


def test_a_pipe_in_the_place_of_an_own_file_does_not_block(store: Store) -> None:
    store.workspace.mkdir()
    os.mkfifo(store.workspace / ".use_order")
    with pytest.raises(DataError, match="use_order is a pipe"):
        store.list_artefacts()


def test_what_the_workspace_wrote_itself_is_no_obstacle(store: Store, tmp_path: Path) -> None:
    """The twin; an artefact may lie elsewhere, for nothing is written through it."""
    made = store.build(TextStage(), TextConfig(), {}, recipe={"path": "/images"})
    (store.workspace / "notes.txt").write_text("mine")
    elsewhere = made.path.rename(tmp_path / made.name)
    made.path.symlink_to(elsewhere)
    again = Store(store.workspace, threads=1)
    stage = TextStage()
    assert again.build(stage, TextConfig(), {}).key == made.key
    assert stage.runs == 0
