"""Comparing what two models return."""

from __future__ import annotations

from typing import Any

import numpy as np


def pictures(model: Any, count: int = 4) -> Any:
    shape = (count, *model.input_shape[1:])
    return np.random.default_rng(1).uniform(0, 255, shape).astype(np.float32)


def assert_equal_outputs(model: Any, smaller: Any, atol: float = 1e-5) -> None:
    x = pictures(model)
    np.testing.assert_allclose(np.asarray(smaller(x)), np.asarray(model(x)), atol=atol)
