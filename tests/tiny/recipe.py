"""A recipe on synthetic pictures that trains in seconds."""

from __future__ import annotations

from typing import Any

TRAIN = {
    "epochs": 1,
    "batch_size": 16,
    "augment": "none",
    "learning_rate": 0.003,
    "imbalance": ["class_weight"],
}

TINY: dict[str, Any] = {
    "name": "tiny",
    "data": {
        "source": "synthetic",
        "image_size": 32,
        "synthetic": {"lesions": 84, "image_size": 48, "seed": 3},
    },
    "train": TRAIN,
}

LEARNED: dict[str, Any] = {
    "name": "tiny",
    "data": TINY["data"],
    "train": {"epochs": 3, "batch_size": 16, "augment": "none", "learning_rate": 0.003},
    "calibration": {"images": 21},
    "verify": {"min_agreement_int8": 0.0},
}
"""Three epochs, and what a model that hardly learned needs to become int8."""
