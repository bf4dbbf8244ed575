"""Runs share no temporary folder, and none is left behind for longer than until the next."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from lesiontk.cli.run_folder import own_temporary_folder

PROGRAM = """
import sys, tempfile
from pathlib import Path
from lesiontk.cli.run_folder import own_temporary_folder
with own_temporary_folder():
    Path(tempfile.gettempdir(), "__autograph_generated_file.py").touch()
    print(tempfile.gettempdir(), flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def common(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The temporary folder of the machine."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path


def start() -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def folder_of(process: subprocess.Popen[str]) -> Path:
    assert process.stdout is not None
    return Path(process.stdout.readline().strip())


def test_it_is_gone_afterwards_and_the_common_one_is_back(common: Path) -> None:
    with own_temporary_folder():
        mine = Path(tempfile.gettempdir())
        assert mine.parent == common / f"lesiontk-{os.getuid()}"
        assert os.environ["TMPDIR"] == str(mine)
        with tempfile.NamedTemporaryFile(delete=False) as file:
            assert Path(file.name).parent == mine
    assert not mine.exists()
    assert Path(tempfile.gettempdir()) == common
    assert os.environ["TMPDIR"] == str(common)


def test_it_is_gone_after_an_error_too(common: Path) -> None:
    with pytest.raises(KeyboardInterrupt), own_temporary_folder():
        raise KeyboardInterrupt
    assert list(common.glob("lesiontk-*/*")) == []


def test_what_a_killed_run_left_is_removed_and_what_a_living_one_uses_is_kept(
    common: Path,
) -> None:
    with start() as killed, start() as living:
        left, used = folder_of(killed), folder_of(living)
        assert left != used
        killed.kill()
        killed.wait()
        assert list(left.iterdir())
        with own_temporary_folder():
            assert not left.exists()
            assert list(used.iterdir())
        assert living.communicate("\n")[0] == ""
        assert living.returncode == 0
    assert list(common.glob("lesiontk-*/*")) == []


@pytest.mark.parametrize("kind", ["file", "link"])
def test_what_stands_in_the_way_is_left_alone(common: Path, kind: str) -> None:
    """A link there could be another user's, and lead anywhere."""
    root, aim = common / f"lesiontk-{os.getuid()}", common / "aim"
    (aim / "run-1").mkdir(parents=True)
    if kind == "file":
        root.touch()
    else:
        root.symlink_to(aim)
    with own_temporary_folder():
        assert Path(tempfile.gettempdir()) == common
    assert (aim / "run-1").is_dir()
