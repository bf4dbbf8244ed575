"""Whether a picture is good enough, and like the training images. Needs NumPy.

Bundles contain this file, on Python 3.8 or later. The checks are fitted by `lesiontk
input-checks`; their numbers are in `input_checks.json` and `input_checks.bin`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

ACCEPTED, POOR_QUALITY, OUT_OF_DOMAIN = "accepted", "poor_quality", "out_of_domain"
STATUSES = (ACCEPTED, POOR_QUALITY, OUT_OF_DOMAIN)
DOCUMENT, ARRAYS = "input_checks.json", "input_checks.bin"
FOLDER = "input_checks"
"""The folder of both beside an engine file outside of a workspace."""
BRIGHT, DARK = 250, 5
"""Luminance from which, and up to which, a pixel holds no detail."""
REASONS = {
    ("sharpness", "low"): "the picture is blurred",
    ("brightness", "low"): "the picture is too dark",
    ("brightness", "high"): "the picture is too bright",
    ("overexposed", "high"): "too much of the picture is overexposed",
    ("underexposed", "high"): "too much of the picture is black",
    ("shorter_side", "low"): "the picture has too few pixels",
}
"""Measure and side of its bound -> what is wrong beyond it."""


def measure_quality(image: Any) -> dict[str, float]:
    """Return the measures of an engine's input, uint8 [S, S, 3] RGB.

    From the luminance (77 R + 150 G + 29 B) / 256 in whole numbers: `sharpness` is the variance of
    its Laplacian, which blur lowers (Pech-Pacheco et al. 2000, ICPR), `brightness` its mean,
    `overexposed` and `underexposed` the shares of pixels at the ends of its range. Sums are exact:
    the same values on every machine.
    """
    pixels = image.astype(np.int64)
    luma = (77 * pixels[..., 0] + 150 * pixels[..., 1] + 29 * pixels[..., 2]) >> 8
    inner = luma[1:-1, 1:-1]
    laplacian = luma[:-2, 1:-1] + luma[2:, 1:-1] + luma[1:-1, :-2] + luma[1:-1, 2:] - 4 * inner
    n, total, squares = laplacian.size, int(laplacian.sum()), int((laplacian * laplacian).sum())
    return {
        "sharpness": squares / n - (total / n) * (total / n),
        "brightness": int(luma.sum()) / luma.size,
        "overexposed": int((luma >= BRIGHT).sum()) / luma.size,
        "underexposed": int((luma <= DARK).sum()) / luma.size,
    }


def find_faults(measures: dict[str, float], bounds: dict[str, dict[str, float]]) -> list[str]:
    """Return what is wrong with a picture: a reason for each measure beyond a bound.

    `bounds` maps measure -> ``low`` or ``high`` -> the last accepted value.
    """
    return [
        reason
        for (name, side), reason in REASONS.items()
        if name in measures and side in bounds.get(name, {})
        and (measures[name] < bounds[name][side] if side == "low"
             else measures[name] > bounds[name][side])
    ]  # fmt: skip


def score_domain(domain: Any, probabilities: Any, features: Any, logits: Any) -> Any:
    """Return how unlike the training images each of N images is, float64 [N]; larger is stranger.

    `domain` is the fitted score with its arrays: ``probability`` (minus the largest probability,
    Hendrycks & Gimpel 2017), ``energy`` (minus logsumexp of the logits, Liu et al. 2020) or
    ``distance``: the smallest squared Mahalanobis distance of the pooled features to a class mean
    (Lee et al. 2018), with a covariance of k principal axes and the mean variance of the rest.
    """
    if domain["score"] == "probability":
        return -np.asarray(probabilities, np.float64).max(axis=1)
    if domain["score"] == "energy":
        logits = np.asarray(logits, np.float64)
        peak = logits.max(axis=1)
        return -(peak + np.log(np.exp(logits - peak[:, np.newaxis]).sum(axis=1)))
    features = np.asarray(features, np.float64)
    if domain["unit_length"]:
        lengths = np.sqrt((features * features).sum(axis=1, keepdims=True))
        features = features / np.maximum(lengths, np.finfo(np.float32).tiny)
    nearest = np.full(len(features), np.inf)
    axes = np.asarray(domain["axes"], np.float64)
    for mean in np.asarray(domain["means"], np.float64):
        from_mean = features - mean
        along = from_mean @ axes.T
        rest = (from_mean * from_mean).sum(axis=1) - (along * along).sum(axis=1)
        distance = (along * along / domain["variances"]).sum(axis=1)
        nearest = np.minimum(nearest, distance + rest / domain["rest_variance"])
    return nearest


def load_checks(folder: Path) -> dict[str, Any]:
    """Return the document of a folder's input checks, with the arrays of its domain score."""
    checks: dict[str, Any] = json.loads((folder / DOCUMENT).read_text(encoding="utf-8"))
    values = np.frombuffer((folder / ARRAYS).read_bytes(), "<f4")
    for name, shape in checks["domain"]["arrays"].items():
        size = int(np.prod(shape))
        checks["domain"][name], values = values[:size].reshape(shape), values[size:]
    return checks


def check_input(
    checks: dict[str, Any],
    image: Any,
    shorter_side: int,
    probabilities: Any,
    features: Any,
    logits: Any,
) -> dict[str, Any]:
    """Return the verdict on one picture: `status`, `reasons` and the measures.

    `image` is the engine's input uint8 [S, S, 3], `shorter_side` that of the picture it was made
    of, and the rest are the engine's outputs for it.
    """
    measures = {**measure_quality(image), "shorter_side": float(shorter_side)}
    reasons = find_faults(measures, checks["quality"])
    domain = checks["domain"]
    outputs = (np.asarray(part)[np.newaxis] for part in (probabilities, features, logits))
    score = float(score_domain(domain, *outputs)[0])
    status = POOR_QUALITY if reasons else ACCEPTED
    if not reasons and not score <= domain["threshold"]:
        status = OUT_OF_DOMAIN
        reasons = ["the picture is unlike the dermoscopic images that the network was trained on"]
    return {
        "status": status,
        "reasons": reasons,
        "measures": {**{name: round(v, 4) for name, v in measures.items()},
                     "domain": round(score, 4)},
    }  # fmt: skip
