"""The engine whose layers are timed."""

from __future__ import annotations

from lesiontk.backends import BACKENDS
from lesiontk.backends.execution import name_emulator
from lesiontk.store import Store
from lesiontk.workflow.lineage import resolve_latest


def resolve_profiled(store: Store, reference: str) -> str:
    """Return the reference of an engine; of the latest ones that of one whose layers can be timed.

    Raises `UsageError` if there is none.
    """
    return resolve_latest(
        store,
        reference,
        lambda facts: _has_profile(facts.backend),
        f"no engine in {store.workspace} whose layers can be timed here fits {reference!r}",
    )


def _has_profile(backend: str) -> bool:
    """Return whether a back end times its operators on this machine."""
    kind = BACKENDS.get(backend)
    if not kind.info.profiles or not kind().available().available:
        return False
    return name_emulator(kind().examine_runtime()) is None
