"""The exit code of a measuring process for an error in the engine file."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from lesiontk.errors import LesionTKError


@contextmanager
def exit_as_lesiontk() -> Iterator[None]:
    """End the process with an error's exit code and its message as the last line."""
    try:
        yield
    except LesionTKError as error:
        sys.stderr.write(" ".join(str(error).split()) + "\n")
        sys.exit(error.exit_code)
