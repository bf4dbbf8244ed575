"""The power of a recipe's gates on the test images of its split."""

from __future__ import annotations

import numpy as np

from lesiontk.bench.benchmark import FULL_PRECISION
from lesiontk.data.tasks import load_task
from lesiontk.evaluate.default_gates import check_gates_of_task, expand_gates
from lesiontk.evaluate.gate_power import GatePower, TestLesions, compute_power
from lesiontk.recipe import Recipe
from lesiontk.stages.split import read_split
from lesiontk.store import Store
from lesiontk.workflow.train import build_data


def measure_power(store: Store, recipe: Recipe) -> tuple[GatePower, ...]:
    """Return the power of each of a recipe's gates on the test images of its split."""
    task = load_task(recipe.data.task)
    check_gates_of_task(recipe.gate, task.name, task.labels, task.positive)
    rows = [row for row in read_split(build_data(store, recipe, "split")) if row.subset == "test"]
    groups = {name: n for n, name in enumerate(sorted({row.group for row in rows}))}
    lesions = TestLesions(
        y_true=np.array([task.labels.index(row.label) for row in rows], dtype=np.int64),
        lesion=np.array([groups[row.group] for row in rows], dtype=np.int64),
        labels=task.labels,
        positive=task.positive,
    )
    judged = [target for target in recipe.convert if not target.endswith(f":{FULL_PRECISION}")]
    return compute_power(
        expand_gates(recipe.gate, task.positive), lesions, len(judged) or len(recipe.convert)
    )
