"""The artefact store: content-addressed, atomic, safe for concurrent processes."""

from lesiontk.store.store import Store

__all__ = ["Store"]
