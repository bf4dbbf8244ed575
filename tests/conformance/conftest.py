"""Fitted models, made once a session."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from lesiontk.models import ARCHITECTURES
from tests.conformance.fitted_models import FittedParent


@pytest.fixture(scope="session")
def fitted_parent(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], FittedParent]:
    """Return a function from an architecture's name to its fitted model."""
    made: dict[str, FittedParent] = {}

    def make(name: str) -> FittedParent:
        if name not in made:
            folder = tmp_path_factory.mktemp(f"fitted-{name}")
            made[name] = FittedParent(ARCHITECTURES.get(name), folder)
        return made[name]

    return make
