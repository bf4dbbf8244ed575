"""What a user can cause has a class and an exit code; suggestions are near or absent."""

from __future__ import annotations

import inspect

import pytest

from lesiontk import errors
from lesiontk.errors import (
    DataError,
    GateFailedError,
    LeakageError,
    LesionTKError,
    MissingRequirementError,
    StorageError,
    UsageError,
    show_value,
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
        (MissingRequirementError, 3),
        (StorageError, 3),
    ],
)
def test_the_exit_code_tells_what_went_wrong(kind: type[LesionTKError], code: int) -> None:
    assert kind("message").exit_code == code


def test_every_error_class_is_a_lesiontk_error() -> None:
    classes = [
        c for _, c in inspect.getmembers(errors, inspect.isclass) if issubclass(c, Exception)
    ]
    assert len(classes) == 7
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


def test_a_message_is_bounded_and_cannot_steer_a_terminal() -> None:
    long = str(DataError("received " + "x" * 100_000 + "; expected less"))
    assert len(long) <= errors.MESSAGE
    assert long.startswith("received xxx")
    assert long.endswith("expected less")
    assert str(DataError("lesion \x1b[2J\udcff naïve 皮\nnext")) == (
        "lesion \\x1b[2J\\udcff naïve 皮\nnext"
    )


@pytest.mark.parametrize(
    "value", ["x" * 10_000, list(range(10_000)), {n: {n: [n] * 99} for n in range(99)}, 9**999]
)
def test_a_received_value_is_shown_in_short(value: object) -> None:
    assert len(show_value(value)) <= errors.VALUE


def test_a_short_value_is_shown_whole() -> None:
    for value in ("mel", 0.5, None, ["mel", "nv"], {"epochs": 3}):
        assert show_value(value) == repr(value)
