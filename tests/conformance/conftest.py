"""Fitted models and their engines, made once a run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from lesiontk.models import ARCHITECTURES
from tests.conformance.fitted_models import FittedParent, remember_parents


@pytest.fixture(scope="session")
def fitted_parent(run_folder: Path) -> Callable[[str], FittedParent]:
    """Return a function from an architecture's name to its fitted model, which workers share."""
    return remember_parents(run_folder / "fitted", ARCHITECTURES.get)


@pytest.fixture(scope="session")
def parent(fitted_parent: Callable[[str], FittedParent]) -> FittedParent:
    """The smallest architecture's."""
    return fitted_parent("cnn")
