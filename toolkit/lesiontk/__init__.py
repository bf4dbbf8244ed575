"""lesiontk: from a folder of dermoscopic images to a verified, optimized engine on an edge device.

Research software; not a medical device. Importing this package loads no framework.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lesiontk.backends import open_engine
    from lesiontk.data.pictures import load_picture
    from lesiontk.recipe import list_recipes, read_recipe
    from lesiontk.store import Store
    from lesiontk.workflow.plan import plan_recipe
    from lesiontk.workflow.runner import run_plan

__version__ = "0.1.0"

_EXPORTS = {
    "Store": "lesiontk.store",
    "list_recipes": "lesiontk.recipe",
    "load_picture": "lesiontk.data.pictures",
    "open_engine": "lesiontk.backends",
    "plan_recipe": "lesiontk.workflow.plan",
    "read_recipe": "lesiontk.recipe",
    "run_plan": "lesiontk.workflow.runner",
}

__all__ = [
    "Store",
    "__version__",
    "list_recipes",
    "load_picture",
    "open_engine",
    "plan_recipe",
    "read_recipe",
    "run_plan",
]


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'lesiontk' has no attribute {name!r}")
    return getattr(importlib.import_module(_EXPORTS[name]), name)
