"""A state that cannot be used is an error that says how to begin anew."""

from __future__ import annotations

from pathlib import Path

import pytest

from lesiontk.errors import DataError
from lesiontk.train.checkpoints import TrainingState, read_state, save_state


def test_a_state_comes_back_whole(tmp_path: Path) -> None:
    assert read_state(tmp_path) == TrainingState()
    for state in (TrainingState(), TrainingState(3, 2, 0.5, 9.0, [{"loss": 1.0}], [[1, 2]])):
        save_state(state, tmp_path)
        assert read_state(tmp_path) == state


@pytest.mark.parametrize("text", ["", "[]", "7", '{"epoch": 1, "more": 2}', '{"a":' * 100_000])
def test_a_damaged_state_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "state-3.json").write_text(text)
    (tmp_path / "state-x.json").write_text("not of ours")
    with pytest.raises(DataError, match=r"state-3\.json"):
        read_state(tmp_path)
