"""A bundle: the folder that runs an engine on a device."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lesiontk.deploy.bundle import BundleFacts
    from lesiontk.deploy.verify import VerifiedBundle


@dataclass(frozen=True, slots=True)
class Bundle:
    """A folder to copy to a device; its README describes installation and test."""

    path: Path
    facts: BundleFacts

    @property
    def engine(self) -> str:
        """The target of its engine, such as ``tflite:int8``."""
        return self.facts.engine

    def verify(self, public_key: str | Path | None = None) -> VerifiedBundle:
        """Check every file against its checksums, and with an Ed25519 key (PEM) the signature.

        Raises `GateFailedError` for files that are changed, missing or not listed, `DataError` for
        a bundle that the key's owner did not sign.
        """
        from lesiontk.deploy.verify import verify_bundle

        return verify_bundle(self.path, None if public_key is None else Path(public_key))
