"""Latency of single images, by a clock that no change of the time of day moves."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from lesiontk.deploy.runner.documents import Latency


def time_engine(engine: Any, images: Any, rounds: int, warmup: int) -> list[float]:
    """Return the milliseconds of `rounds` single images after `warmup` others.

    A runtime with its own clock (CUDA events) has `time_images`.
    """
    if hasattr(engine, "time_images"):
        return [float(value) for value in engine.time_images(images, rounds, warmup)]
    samples = []
    for turn in range(warmup + rounds):
        image = images[turn % len(images)][np.newaxis]
        start = time.perf_counter()
        engine.predict(image)
        if turn >= warmup:
            samples.append(1000 * (time.perf_counter() - start))
    return samples


def summarize(samples: list[float]) -> Latency:
    """Return n, median and 90th percentile in ms, and the samples."""
    return {
        "n": len(samples),
        "median": float(np.median(samples)),
        "p90": float(np.percentile(samples, 90)),
        "samples": samples,
    }
