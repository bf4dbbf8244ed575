"""The workspace of one finished demo, for all tests of this folder."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.chain import Chain
from tests.measuring import measuring_here


@pytest.fixture(scope="session")
def chain(run_folder: Path) -> Chain:
    return Chain(run_folder / "chain")


@pytest.fixture
def copy(chain: Chain, tmp_path: Path) -> Iterator[Path]:
    """A copy of the workspace that may be written to; its engines are measured in this process."""
    with measuring_here():
        yield Path(shutil.copytree(chain.workspace, tmp_path / "copy"))
