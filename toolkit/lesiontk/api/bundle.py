"""A bundle: the folder that runs an engine on a device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Bundle:
    """A folder to copy to a device; its README says how to install and test it there.

    `facts` has the engine, the device and ``size_bytes``.
    """

    path: Path
    facts: Mapping[str, Any]

    @property
    def engine(self) -> str:
        """The target of the engine inside, as ``tflite:int8``."""
        return str(self.facts["engine"])
