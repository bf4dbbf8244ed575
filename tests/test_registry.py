"""A registry lists names without importing, and refuses what is taken or unknown."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lesiontk.backends import BACKENDS
from lesiontk.calibration.observers import OBSERVERS
from lesiontk.data.augment import AUGMENTATIONS
from lesiontk.data.corruptions import CORRUPTIONS
from lesiontk.data.sources import SOURCES
from lesiontk.deploy import BUNDLE_TARGETS
from lesiontk.errors import UsageError
from lesiontk.models import ARCHITECTURES
from lesiontk.recipe.metric import METRICS
from lesiontk.registry import Registry
from lesiontk.stages import STAGES
from lesiontk.technique import TECHNIQUES
from lesiontk.train.feature_losses import FEATURE_LOSSES
from lesiontk.train.imbalance import IMBALANCE

SHIPPED: tuple[Registry[Any], ...] = (
    ARCHITECTURES,
    AUGMENTATIONS,
    BACKENDS,
    BUNDLE_TARGETS,
    CORRUPTIONS,
    FEATURE_LOSSES,
    IMBALANCE,
    METRICS,
    OBSERVERS,
    SOURCES,
    STAGES,
    TECHNIQUES,
)


@pytest.fixture
def paints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry[str]]:
    """Two names whose objects stand in a module that nobody has imported."""
    (tmp_path / "paints_of_a_test.py").write_text("RED = 'ff0000'\nGREEN = '00ff00'\n")
    monkeypatch.syspath_prepend(tmp_path)
    registry: Registry[str] = Registry("paint")
    registry.register("red", "paints_of_a_test:RED")
    registry.register("green", "paints_of_a_test:GREEN")
    yield registry
    sys.modules.pop("paints_of_a_test", None)


def test_listing_imports_nothing_and_asking_imports(paints: Registry[str]) -> None:
    assert list(paints) == ["red", "green"]
    assert len(paints) == 2
    assert "red" in paints
    assert "blue" not in paints
    assert "paints_of_a_test" not in sys.modules
    assert paints.get("green") == "00ff00"
    assert "paints_of_a_test" in sys.modules


def test_items_come_in_the_order_of_registration(paints: Registry[str]) -> None:
    assert list(paints.items()) == [("red", "ff0000"), ("green", "00ff00")]


def test_a_name_that_is_taken_is_refused_and_keeps_its_object(paints: Registry[str]) -> None:
    with pytest.raises(ValueError, match="paint 'red' is already registered"):
        paints.register("red", "paints_of_a_test:GREEN")
    assert paints.get("red") == "ff0000"


@pytest.mark.parametrize("target", ["paints_of_a_test", "paints_of_a_test:RED:GREEN"])
def test_a_target_must_name_one_module_and_one_attribute(
    paints: Registry[str], target: str
) -> None:
    with pytest.raises(ValueError, match="is not 'module:attribute'"):
        paints.register("blue", target)
    assert "blue" not in paints


def test_an_unknown_name_lists_the_known_and_suggests_the_nearest(paints: Registry[str]) -> None:
    with pytest.raises(UsageError) as caught:
        paints.get("gren")
    assert str(caught.value) == (
        "unknown paint 'gren'; known are red, green. Did you mean 'green'?"
    )


def test_a_name_like_no_other_gets_no_suggestion(paints: Registry[str]) -> None:
    with pytest.raises(UsageError) as caught:
        paints.get("zzzz")
    assert "Did you mean" not in str(caught.value)


@pytest.mark.parametrize("registry", SHIPPED, ids=lambda registry: str(registry.family))
def test_every_registered_name_leads_to_an_object(registry: Registry[Any]) -> None:
    assert [name for name, _ in registry.items()] == list(registry)
    assert len(registry) > 1
