"""tensorflow-model-optimization's magnitude pruning: what others' models are wrapped with."""

from __future__ import annotations

import importlib
import warnings
from typing import Any

from lesiontk.system.frameworks import import_tensorflow


def import_sparsity() -> Any:
    """Return its API; its import compares versions in a deprecated way."""
    import_tensorflow()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module(
            "tensorflow_model_optimization.python.core.api.sparsity.keras"
        )
