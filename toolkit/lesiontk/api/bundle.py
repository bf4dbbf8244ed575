"""A bundle: the folder that runs an engine on a device."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lesiontk.deploy.bundle import BundleFacts


@dataclass(frozen=True, slots=True)
class Bundle:
    """A folder to copy to a device; its README describes installation and test."""

    path: Path
    facts: BundleFacts

    @property
    def engine(self) -> str:
        """The target of its engine, such as ``tflite:int8``."""
        return self.facts.engine
