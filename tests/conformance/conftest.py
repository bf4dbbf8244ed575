"""Fitted models and their engines, made once a run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from lesiontk.models import ARCHITECTURES
from tests.conformance.fitted_models import FittedParent


@pytest.fixture(scope="session")
def fitted_parent(run_folder: Path) -> Callable[[str], FittedParent]:
    """Return a function from an architecture's name to its fitted model, which workers share."""
    made: dict[str, FittedParent] = {}

    def make(name: str) -> FittedParent:
        if name not in made:
            folder = run_folder / f"fitted-{name}"
            folder.mkdir(exist_ok=True)
            made[name] = FittedParent(ARCHITECTURES.get(name), folder)
        return made[name]

    return make
