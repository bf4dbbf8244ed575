"""A recipe on synthetic pictures, and how a network is trained on them in a second."""

from __future__ import annotations

import json
from typing import Any

from lesiontk.recipe import Recipe, parse_recipe
from tests.tiny.network import NAME, WEIGHTS

TRAIN = {
    "epochs": 1,
    "batch_size": 16,
    "augment": "none",
    "learning_rate": 0.001,
    "imbalance": ["class_weight"],
}
"""What a network that was trained recovers by."""

TINY: dict[str, Any] = {
    "name": "tiny",
    "data": {
        "source": "synthetic",
        "image_size": 32,
        "synthetic": {"lesions": 84, "image_size": 48, "seed": 3},
    },
    "model": {"architecture": NAME, "weights": str(WEIGHTS)},
    "train": {**TRAIN, "learning_rate": 1e-6},  # the weights are those of a finished training
    "calibration": {"images": 32},
    "evaluate": {"resamples": 100},
    "explain": {"images": 0},
    "bench": {
        "rounds": 20,
        "queries": 2,
        "warmup": 1,
        "scenarios": ["single_stream"],
        "repeats": 0,
    },
}


def tiny_recipe(*compress: dict[str, Any], **sections: Any) -> Recipe:
    """Return the recipe with these steps of compression and these sections changed."""
    document = json.loads(json.dumps(TINY))
    return parse_recipe({**document, "compress": list(compress), **sections})
