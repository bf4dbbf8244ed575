"""The background process of a conversion: it converts a model to the targets in its input.

Run as ``python -m lesiontk.workflow.conversion_worker`` with the call as JSON on standard input.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from lesiontk.store import SharedStore, Store
from lesiontk.system.malloc_tuning import keep_freed_memory
from lesiontk.workflow.convert import convert_model


def main() -> None:
    """Convert the call on standard input, when it is written."""
    keep_freed_memory()
    call = json.load(sys.stdin)
    shared = SharedStore(call["shared"]) if call["shared"] else None
    store = Store(Path(call["workspace"]), shared=shared)
    model = store.resolve(call["model"], "model")
    convert_model(store, model, call["targets"], call["overrides"], background=False)


if __name__ == "__main__":
    main()
