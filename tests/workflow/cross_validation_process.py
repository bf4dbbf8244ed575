"""Cross-validates the tiny recipe in a process of its own, for a test to kill:

python -m tests.workflow.cross_validation_process WORKSPACE
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from lesiontk.recipe import Recipe
from lesiontk.store import Store
from lesiontk.workflow.cross_validation import cross_validate
from tests.tiny.network import registered
from tests.tiny.recipe import tiny_recipe

FOLDS = 2
ENGINES = ("keras:float32", "tflite:float32", "tflite:int8")


def folded_recipe(folds: int = FOLDS) -> Recipe:
    """Return the tiny recipe in folds, with one pair of engines."""
    recipe = tiny_recipe(
        convert=list(ENGINES),
        calibration={"images": 24},
        verify={"images": 16, "min_agreement_int8": 0.5, "max_mean_drift_int8": 0.5},
    )
    split = recipe.data.split.model_copy(update={"folds": folds})
    return recipe.model_copy(update={"data": recipe.data.model_copy(update={"split": split})})


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    with registered():
        cross_validate(Store(Path(sys.argv[1]), threads=1), folded_recipe())
