"""Whether a picture is good enough, and like the training images. Needs NumPy.

Bundles contain this file, on Python 3.8 or later. The checks are fitted by `lesiontk
input-checks`; their numbers are in `input_checks.json` and `input_checks.bin`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

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
PROBABILITY, ENERGY, DISTANCE = "probability", "energy", "distance"


@dataclass(frozen=True)
class Distance:
    """A Mahalanobis distance to class means: k principal axes, and the mean variance of the rest.

    `means` [C, D], `axes` [k, D] and `variances` [k] are float32, `unit_length` says whether the
    length of features is removed before.
    """

    unit_length: bool
    means: Any
    axes: Any
    variances: Any
    rest_variance: float


ARRAY_NAMES = ("means", "axes", "variances")
"""The arrays of a distance, in the order of the file."""


@dataclass(frozen=True)
class DomainScore:
    """How unlike the training images an image is: by `kind`, with the `distance` if it is one.

    ``probability`` is minus the largest probability (Hendrycks & Gimpel 2017), ``energy`` minus
    logsumexp of the logits (Liu et al. 2020), ``distance`` the smallest squared Mahalanobis
    distance of the pooled features to a class mean (Lee et al. 2018).
    """

    kind: str
    distance: Distance | None = None


@dataclass(frozen=True)
class Checks:
    """The input checks of the engine with the hash `engine_sha256`.

    `quality` maps measure -> ``low`` or ``high`` -> the last accepted value, `threshold` is the
    last accepted score of the domain.
    """

    engine_sha256: str
    quality: Mapping[str, Mapping[str, float]]
    domain: DomainScore
    threshold: float


class InputVerdict(TypedDict):
    """The verdict on one picture, as in the document of a prediction."""

    status: str
    reasons: list[str]
    measures: dict[str, float]


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


def find_faults(
    measures: Mapping[str, float], bounds: Mapping[str, Mapping[str, float]]
) -> list[str]:
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


def score_domain(domain: DomainScore, probabilities: Any, features: Any, logits: Any) -> Any:
    """Return how unlike the training images each of N images is, float64 [N]; larger is stranger.

    Of `probabilities` and `logits` [N, C] and `features` [N, D] only those of the score are read.
    """
    fitted = domain.distance
    if domain.kind == PROBABILITY:
        return -np.asarray(probabilities, np.float64).max(axis=1)
    if fitted is None:
        logits = np.asarray(logits, np.float64)
        peak = logits.max(axis=1)
        return -(peak + np.log(np.exp(logits - peak[:, np.newaxis]).sum(axis=1)))
    features = np.asarray(features, np.float64)
    if fitted.unit_length:
        lengths = np.sqrt((features * features).sum(axis=1, keepdims=True))
        features = features / np.maximum(lengths, np.finfo(np.float32).tiny)
    nearest = np.full(len(features), np.inf)
    axes = np.asarray(fitted.axes, np.float64)
    for mean in np.asarray(fitted.means, np.float64):
        from_mean = features - mean
        along = from_mean @ axes.T
        rest = (from_mean * from_mean).sum(axis=1) - (along * along).sum(axis=1)
        distance = (along * along / fitted.variances).sum(axis=1)
        nearest = np.minimum(nearest, distance + rest / fitted.rest_variance)
    return nearest


def load_checks(folder: Path) -> Checks:
    """Return the input checks in a folder."""
    document = json.loads((folder / DOCUMENT).read_text(encoding="utf-8"))
    domain = document["domain"]
    values = np.frombuffer((folder / ARRAYS).read_bytes(), "<f4")
    arrays = {}
    for name, shape in domain["arrays"].items():
        size = int(np.prod(shape))
        arrays[name], values = values[:size].reshape(shape), values[size:]
    distance = None
    if domain["score"] == DISTANCE:
        distance = Distance(
            unit_length=domain["unit_length"], rest_variance=domain["rest_variance"], **arrays
        )
    return Checks(
        document["engine_sha256"],
        document["quality"],
        DomainScore(domain["score"], distance),
        domain["threshold"],
    )


def check_input(
    checks: Checks,
    image: Any,
    shorter_side: int,
    probabilities: Any,
    features: Any,
    logits: Any,
) -> InputVerdict:
    """Return the verdict on one picture.

    `image` is the engine's input uint8 [S, S, 3], `shorter_side` that of the picture it was made
    of, and the rest are the engine's outputs for it.
    """
    measures = {**measure_quality(image), "shorter_side": float(shorter_side)}
    reasons = find_faults(measures, checks.quality)
    outputs = (np.asarray(part)[np.newaxis] for part in (probabilities, features, logits))
    score = float(score_domain(checks.domain, *outputs)[0])
    status = POOR_QUALITY if reasons else ACCEPTED
    if not reasons and not score <= checks.threshold:
        status = OUT_OF_DOMAIN
        reasons = ["the picture is unlike the dermoscopic images that the network was trained on"]
    return {
        "status": status,
        "reasons": reasons,
        "measures": {**{name: round(v, 4) for name, v in measures.items()},
                     "domain": round(score, 4)},
    }  # fmt: skip
