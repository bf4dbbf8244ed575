"""The machine and package versions that a result may depend on."""

from __future__ import annotations

import platform
from importlib import metadata

from lesiontk.system.cores import count_cores


def describe_environment() -> dict[str, str | int]:
    """Return the environment that a result may depend on; no host name, no path."""
    return {
        "python": platform.python_version(),
        "system": platform.system(),
        "architecture": platform.machine(),
        "cores": count_cores(),
        "lesiontk": version_of("lesiontk"),
    }


def version_of(distribution: str) -> str:
    """Return the version of an installed distribution, or ``absent``."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "absent"
