"""Check of the distributions that a back end needs, without importing them."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import metadata

from lesiontk.records import Availability


def check_distributions(names: Iterable[str], remedy: str) -> Availability:
    """Return the versions found, or the first distribution that is missing."""
    versions = {}
    for name in names:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            return Availability(False, f"the package {name} is not installed; {remedy}", versions)
    return Availability(True, versions=versions)
