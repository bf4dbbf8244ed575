"""lesiontk: from a folder of dermoscopic images to a verified, optimized engine on an edge device.

    import lesiontk

    ws = lesiontk.Workspace("lesions")
    model = ws.train("cnn_7class", data="HAM10000")
    engines = model.quantize()
    print(ws.bench().to_pandas())

Research software; not a medical device. Importing this package loads no framework.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lesiontk.api.benchmark import Benchmark
    from lesiontk.api.engine import Engine
    from lesiontk.api.engines import Engines
    from lesiontk.api.fetch import fetch_data
    from lesiontk.api.model import Model
    from lesiontk.api.report import Report
    from lesiontk.api.workspace import Workspace
    from lesiontk.backends import open_engine
    from lesiontk.data.pictures import load_picture
    from lesiontk.data.tasks import list_tasks, load_task
    from lesiontk.errors import LesionTKError
    from lesiontk.recipe import list_recipes, read_recipe
    from lesiontk.store import Store
    from lesiontk.workflow.doctor import examine_machine
    from lesiontk.workflow.plan import plan_recipe
    from lesiontk.workflow.runner import run_plan

__version__ = "0.1.0"

_EXPORTS = {
    "Benchmark": "lesiontk.api.benchmark",
    "Engine": "lesiontk.api.engine",
    "Engines": "lesiontk.api.engines",
    "LesionTKError": "lesiontk.errors",
    "Model": "lesiontk.api.model",
    "Report": "lesiontk.api.report",
    "Store": "lesiontk.store",
    "Workspace": "lesiontk.api.workspace",
    "examine_machine": "lesiontk.workflow.doctor",
    "fetch_data": "lesiontk.api.fetch",
    "list_recipes": "lesiontk.recipe",
    "list_tasks": "lesiontk.data.tasks",
    "load_picture": "lesiontk.data.pictures",
    "load_task": "lesiontk.data.tasks",
    "open_engine": "lesiontk.backends",
    "plan_recipe": "lesiontk.workflow.plan",
    "read_recipe": "lesiontk.recipe",
    "run_plan": "lesiontk.workflow.runner",
}

__all__ = [
    "Benchmark",
    "Engine",
    "Engines",
    "LesionTKError",
    "Model",
    "Report",
    "Store",
    "Workspace",
    "__version__",
    "examine_machine",
    "fetch_data",
    "list_recipes",
    "list_tasks",
    "load_picture",
    "load_task",
    "open_engine",
    "plan_recipe",
    "read_recipe",
    "run_plan",
]


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'lesiontk' has no attribute {name!r}")
    return getattr(importlib.import_module(_EXPORTS[name]), name)


def __dir__() -> list[str]:
    return __all__
