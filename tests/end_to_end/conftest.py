"""The workspace of one finished demo, for all tests of this folder."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.end_to_end.test_chain import Chain


@pytest.fixture(scope="session")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    from tests.end_to_end.test_chain import Chain

    return Chain(tmp_path_factory.mktemp("chain") / "workspace")


@pytest.fixture
def copy(chain: Chain, tmp_path: Path) -> Path:
    """A copy of the workspace that may be written to."""
    return Path(shutil.copytree(chain.workspace, tmp_path / "copy"))
