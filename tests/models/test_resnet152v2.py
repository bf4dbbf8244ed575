"""Trained from random weights, the deep network begins as a shallow one."""

from __future__ import annotations

import numpy as np
import pytest

from lesiontk.models import ARCHITECTURES
from lesiontk.models.architecture import build_model


@pytest.mark.slow
def test_residual_branches_begin_at_zero_but_where_channels_change() -> None:
    architecture = ARCHITECTURES.get("resnet152v2")
    model = build_model(architecture, image_size=32, classes=7)
    assert architecture.initialize is not None
    architecture.initialize(model)
    silent = {
        layer.name: not layer.get_weights()[0].any()
        for layer in model.layers
        if layer.name.endswith("_3_conv")
    }
    assert len(silent) == 50
    assert [name for name, is_silent in silent.items() if not is_silent] == [
        f"conv{stage}_block1_3_conv" for stage in (2, 3, 4, 5)
    ]
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype(np.float32)
    probabilities = model.predict(images, verbose=0)
    assert np.abs(probabilities[0] - probabilities[1]).max() > 0
