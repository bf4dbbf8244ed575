"""Errors that a user can cause, each with its exit code.

An error's message is one sentence or two: what was received, what was expected, and the remedy.
Anything that is not a `LesionTKError` is a bug in lesiontk.
"""

from __future__ import annotations

import difflib
import reprlib
import unicodedata
from collections.abc import Iterable

MESSAGE = 4000
"""Maximum length of an error message; the input that it quotes may be of any length."""
VALUE = 120
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = VALUE
_SHORT.maxlevel = 3


class LesionTKError(Exception):
    """Base of every error that a user, an input or a machine can cause.

    The message has a bounded length and control characters are escaped, because it quotes names
    and values from files of unknown origin.
    """

    exit_code = 2

    def __str__(self) -> str:
        return escape_controls(shorten(super().__str__(), MESSAGE))


class UsageError(LesionTKError):
    """A command, recipe or call that is invalid or not allowed."""


class DataError(LesionTKError):
    """Images, tables or files that are missing, broken or inconsistent."""


class LeakageError(DataError):
    """A lesion, group or image is in two subsets of a split."""


class GateFailedError(LesionTKError):
    """The work completed but its result failed a verification or an acceptance gate."""

    exit_code = 1


class MissingRequirementError(LesionTKError):
    """A package, driver, device or permission is missing on this machine."""

    exit_code = 3


class StorageError(MissingRequirementError):
    """A disk or a shared store is full, read-only or out of reach: the same work can succeed
    later."""


def escape_controls(text: str) -> str:
    """Return the text with every control character escaped except the line feed.

    Spaces of any width stay: figures contain narrow and no-break ones.
    """
    return "".join(
        c
        if c.isprintable() or c == "\n" or unicodedata.category(c) == "Zs"
        else c.encode("unicode_escape").decode()
        for c in text
    )


def shorten(text: str, limit: int = VALUE) -> str:
    """Return the text, shortened in its middle to at most `limit` characters."""
    half = (limit - 3) // 2
    return text if len(text) <= limit else f"{text[:half]}...{text[-half:]}"


def show_value(value: object) -> str:
    """Return the ``repr`` of a received value, shortened for an error message."""
    return shorten(_SHORT.repr(value))


def suggest(received: str, known: Iterable[str]) -> str:
    """Return `` Did you mean 'x'?`` for the nearest known name, or an empty string."""
    near = difflib.get_close_matches(received[:VALUE], list(known), n=1, cutoff=0.5)
    return f" Did you mean {near[0]!r}?" if near else ""
