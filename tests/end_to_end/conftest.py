"""The workspace of one finished demo, for all tests of this folder."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.end_to_end.chain import Chain


@pytest.fixture(scope="session")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    return Chain(tmp_path_factory.mktemp("chain") / "workspace")


@pytest.fixture
def copy(chain: Chain, tmp_path: Path) -> Path:
    """A copy of the workspace that may be written to."""
    return Path(shutil.copytree(chain.workspace, tmp_path / "copy"))
