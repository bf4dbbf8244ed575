"""A search of two engines of a network that is trained in seconds."""

from __future__ import annotations

from typing import Any

SPACE: dict[str, Any] = {
    "recipe": "cnn_7class",
    "set": {
        "data.source": "synthetic",
        "data.image_size": 32,
        "data.synthetic": {"lesions": 84, "image_size": 48, "seed": 3},
        "train.epochs": 3,
        "calibration.images": 32,
        "calibration.list": None,
        "evaluate.resamples": 100,
        "bench.rounds": 5,
        "bench.repeats": 0,
        "verify.min_agreement_int8": 0.0,
        "verify.max_mean_drift_int8": 1.0,
    },
    "vary": {"target": ["tflite:int8", "tflite:float16"]},
    "objectives": ["balanced_accuracy", "p90_ms"],
    "sampler": "grid",
}
