"""Writes ``imagenet_logits.json``: what PyTorch's EfficientNet-Lite say of made-up pictures.

pip install torch==2.13.0 efficientnet-lite-pytorch==0.1.0 'lesiontk[imagenet-weights]'
python -m tests.models.imagenet_logits
"""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lesiontk.models import ARCHITECTURES

FILE = Path(__file__).with_suffix(".json")
SIZE = 224
NAMES = ("efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2")


def draw_smooth(size: int, knots: int, seed: int) -> NDArray[np.uint8]:
    """Return uint8 [size, size, 3]: random colors at knots, linear between them."""
    colors = np.random.default_rng(seed).uniform(0, 255, (knots, knots, 3))
    places = np.linspace(0, knots - 1, size)
    weights = np.maximum(0, 1 - np.abs(places[:, np.newaxis] - np.arange(knots)))
    return np.asarray(np.einsum("yi,xj,ijc->yxc", weights, weights, colors), np.uint8)


def draw_pictures() -> NDArray[np.uint8]:
    """Return uint8 [6, 224, 224, 3]: three smooth pictures, and three crops of a large one."""
    large = draw_smooth(400, 30, seed=9)
    crops = [
        large[top : top + SIZE, left : left + SIZE] for top, left in ((0, 0), (37, 120), (176, 88))
    ]
    return np.stack([draw_smooth(SIZE, knots, seed=knots) for knots in (5, 11, 23)] + crops)


def run_in_torch(name: str) -> NDArray[np.float32]:
    """Return the logits of the package's network, float32 [6, 1000]."""
    torch: Any = importlib.import_module("torch")
    network: Any = importlib.import_module("efficientnet_lite_pytorch").EfficientNet.from_name(
        name.replace("_", "-"), image_size=SIZE
    )
    source = ARCHITECTURES.get(name).find_weights("imagenet")
    assert source is not None
    network.load_state_dict(torch.load(source.path))
    pixels = (draw_pictures().astype(np.float32).transpose(0, 3, 1, 2) - 127) / 128
    with torch.no_grad():
        return np.asarray(network.eval()(torch.from_numpy(pixels)))


if __name__ == "__main__":
    document = {}
    for architecture in NAMES:
        logits = run_in_torch(architecture)
        document[architecture] = {
            "first": [[round(float(value), 5) for value in row[:8]] for row in logits],
            "argmax": logits.argmax(axis=1).tolist(),
        }
    FILE.write_text(json.dumps(document, indent=1) + "\n")
