"""What can go wrong for a user, and the exit code each means.

An error's message is one sentence or two: what was received, what was expected, how to mend it.
Anything that is not a `LesionTKError` is a bug in lesiontk.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class LesionTKError(Exception):
    """Base of every error that a user, an input or a machine can cause."""

    exit_code = 2


class UsageError(LesionTKError):
    """A command, recipe or call that cannot be understood or is not allowed."""


class DataError(LesionTKError):
    """Images, tables or files that are missing, broken or inconsistent."""


class LeakageError(DataError):
    """A lesion, group or image stands on two sides of a split."""


class GateFailedError(LesionTKError):
    """Work was done and its result is not good enough (verification, acceptance gate)."""

    exit_code = 1


class EnvironmentLacksError(LesionTKError):
    """A package, driver, device or permission is missing on this machine."""

    exit_code = 3


def suggest(received: str, known: Iterable[str]) -> str:
    """Return `` Did you mean 'x'?`` for the nearest known name, or an empty string."""
    near = difflib.get_close_matches(received, list(known), n=1, cutoff=0.5)
    return f" Did you mean {near[0]!r}?" if near else ""
