"""What the commands of ``run.py`` share: the call, its outcome, common options."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass

from lesiontk.deploy.runner.contract import Bundle
from lesiontk.deploy.runner.integrity import FileCheck


@dataclass(frozen=True)
class Call:
    """A command's bundle, the check of its files, and the options of the command line."""

    bundle: Bundle
    files: FileCheck
    options: argparse.Namespace

    def require_files(self) -> None:
        """Raise `DamagedBundleError` unless every file of the bundle is intact and listed."""
        self.files.require((self.bundle.engine_file, self.bundle.golden.file))


@dataclass(frozen=True)
class Outcome:
    """A command's result as a JSON document and as text, and its exit code."""

    document: Mapping[str, object]
    text: str
    code: int = 0


def positive(text: str) -> int:
    """Return a whole number of at least 1. Raises `argparse.ArgumentTypeError` for others."""
    if text.isascii() and text.isdigit() and int(text) >= 1:
        return int(text)
    raise argparse.ArgumentTypeError(f"received {text!r}; expected a whole number from 1")


def seconds(text: str) -> float:
    """Return a number of seconds above 0. Raises `argparse.ArgumentTypeError` for others."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if 0 < value < 1e6:
        return value
    raise argparse.ArgumentTypeError(f"received {text!r}; expected seconds above 0")
