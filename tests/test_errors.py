"""What a user can cause has a class and an exit code; suggestions are near or absent."""

from __future__ import annotations

import inspect

import pytest

from lesiontk import errors
from lesiontk.errors import (
    DataError,
    EnvironmentLacksError,
    GateFailedError,
    LeakageError,
    LesionTKError,
    UsageError,
    suggest,
)


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (GateFailedError, 1),
        (LesionTKError, 2),
        (UsageError, 2),
        (DataError, 2),
        (LeakageError, 2),
        (EnvironmentLacksError, 3),
    ],
)
def test_the_exit_code_tells_what_went_wrong(kind: type[LesionTKError], code: int) -> None:
    assert kind("message").exit_code == code


def test_every_error_class_is_a_lesiontk_error() -> None:
    classes = [
        c for _, c in inspect.getmembers(errors, inspect.isclass) if c.__name__ != "Iterable"
    ]
    assert len(classes) == 6
    assert all(issubclass(c, LesionTKError) for c in classes)


def test_leakage_is_an_error_of_the_data() -> None:
    assert issubclass(LeakageError, DataError)


def test_a_bug_is_not_a_lesiontk_error() -> None:
    assert not issubclass(ValueError, LesionTKError)
    assert not issubclass(LesionTKError, (ValueError, OSError))


def test_the_nearest_known_name_is_suggested() -> None:
    assert suggest("epoch", ["epochs", "ema", "seed"]) == " Did you mean 'epochs'?"


@pytest.mark.parametrize("known", [[], ["seed"]])
def test_nothing_is_suggested_where_nothing_is_near(known: list[str]) -> None:
    assert suggest("epoch", known) == ""
