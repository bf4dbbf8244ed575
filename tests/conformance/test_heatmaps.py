"""Grad-CAM works on every registered architecture."""

from __future__ import annotations

import numpy as np
import pytest

from lesiontk.explain.keras_grad_cam import GradCAM
from lesiontk.models import ARCHITECTURES
from lesiontk.models.architecture import build_model
from lesiontk.system.frameworks import import_keras
from tests.conformance.cases import each_architecture
from tests.conformance.fitted_models import draw_pictures

CLASSES = 3


@pytest.mark.parametrize("name", each_architecture())
def test_it_can_say_where_its_evidence_lies(name: str) -> None:
    architecture = ARCHITECTURES.get(name)
    size = 2 * architecture.min_image_size
    import_keras().utils.set_random_seed(6)
    model = build_model(architecture, image_size=size, classes=CLASSES, dropout=0.2)
    network = GradCAM(model)
    assert network.grid[0] > 1
    assert network.grid[1] > 1
    pixels, _ = draw_pictures(2, size, CLASSES, seed=8)
    by_class = [network.explain(pixels, np.full(2, label)) for label in range(CLASSES)]
    for heatmaps in by_class:
        assert heatmaps.shape == (2, size, size)
        assert heatmaps.dtype == np.float32
        assert np.isfinite(heatmaps).all()
        assert (heatmaps >= 0).all()
        assert set(heatmaps.max(axis=(1, 2))) <= {0.0, 1.0}
    assert any(heatmaps.any() for heatmaps in by_class)
    assert any(np.abs(heatmaps - by_class[0]).max() > 0.01 for heatmaps in by_class[1:])


def test_the_cnn_is_asked_at_the_last_layer_before_pooling() -> None:
    model = build_model(ARCHITECTURES.get("cnn"), image_size=96, classes=2)
    network = GradCAM(model)
    assert (network.layer, network.grid) == ("block6_relu", (3, 3))
