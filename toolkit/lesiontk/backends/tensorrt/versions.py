"""Versions of TensorRT."""

from __future__ import annotations

from lesiontk.errors import UsageError


def parse_version(version: str) -> tuple[int, int]:
    """Return major and minor of a version such as ``8.5.2``. Raises `UsageError` for others."""
    parts = version.split(".")
    if len(parts) < 2 or not all(part.isdigit() for part in parts[:2]):
        raise UsageError(f"{version!r} is not a version of TensorRT; expected one such as 8.5.2.")
    return int(parts[0]), int(parts[1])
