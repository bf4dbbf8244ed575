"""The process beside a conversion: it converts one model to the targets that it reads.

Run as ``python -m lesiontk.workflow.conversion_worker`` with the call as JSON on standard input.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from lesiontk.store import Store
from lesiontk.system.malloc_tuning import keep_freed_memory
from lesiontk.workflow.convert import convert_model


def main() -> None:
    """Convert what standard input names, once it is written there."""
    keep_freed_memory()
    call = json.load(sys.stdin)
    store = Store(Path(call["workspace"]))
    model = store.resolve(call["model"], "model")
    convert_model(store, model, call["targets"], call["overrides"], aside=False)


if __name__ == "__main__":
    main()
