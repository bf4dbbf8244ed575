"""The artefact store: content-addressed, atomic, safe for concurrent processes and machines."""

from lesiontk.store.shared import SharedStore
from lesiontk.store.store import Store

__all__ = ["SharedStore", "Store"]
