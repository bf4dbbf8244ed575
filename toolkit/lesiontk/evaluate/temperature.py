"""Temperature scaling: one temperature, fitted on validation, that calibrates the confidence.

Guo et al. 2017 (arXiv:1706.04599), section 4.2: logits are divided by a T > 0 that minimizes the
log loss on validation. The arg-max does not change. An engine returns probabilities, whose
logarithms are its logits up to a constant for each image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from lesiontk.document import Record
from lesiontk.evaluate.bootstrap import Estimate, estimate_metrics
from lesiontk.evaluate.metrics import (
    SMALLEST_PROBABILITY,
    FloatArray,
    MetricScorer,
    check_probabilities,
    check_truth,
)

LOWEST, HIGHEST = 0.05, 20.0
CALIBRATION_ERROR = "expected_calibration_error"


@dataclass(frozen=True, slots=True)
class TemperatureEvaluation(Record):
    """A `temperature` frozen on validation, and its calibration error on other images."""

    temperature: float
    expected_calibration_error: Estimate


def apply_temperature(probabilities: npt.ArrayLike, temperature: float) -> FloatArray:
    """Return softmax(log p / T), float64 [N, C], of probabilities float [N, C].

    A probability below the step of float32 at 1 counts as that step.
    """
    array = check_probabilities("probabilities", probabilities)
    logits = np.log(np.maximum(array, SMALLEST_PROBABILITY)) / temperature
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    scaled: FloatArray = powers / powers.sum(axis=1, keepdims=True)
    return scaled


def fit_temperature(y_true: npt.ArrayLike, probabilities: npt.ArrayLike) -> float:
    """Return the T in [0.05, 20] that minimizes the log loss; `y_true` int [N], probabilities [N,
    C]."""
    array = check_probabilities("probabilities", probabilities)
    truth = check_truth(y_true, *array.shape)
    rows = np.arange(len(truth))

    def log_loss(log_temperature: float) -> float:
        scaled = apply_temperature(array, float(np.exp(log_temperature)))
        return float(-np.log(np.maximum(scaled[rows, truth], 1e-300)).mean())

    from scipy.optimize import minimize_scalar  # slow to import; no help needs it

    found = minimize_scalar(
        log_loss, bounds=(np.log(LOWEST), np.log(HIGHEST)), method="bounded",
        options={"xatol": 1e-4},
    )  # fmt: skip
    return float(np.exp(found.x))


def evaluate_temperature(
    temperature: float,
    y_true: npt.ArrayLike,
    probabilities: npt.ArrayLike,
    labels: Sequence[str],
    groups: Sequence[str],
    *,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> TemperatureEvaluation:
    """Return the calibration error at `temperature`; arguments as `evaluate_predictions`."""
    scorer = MetricScorer(y_true, apply_temperature(probabilities, temperature), labels)
    estimates = estimate_metrics(
        partial(scorer.compute, kinds=(CALIBRATION_ERROR,)),
        groups,
        resamples=resamples,
        confidence=confidence,
        seed=seed,
        biased_upward=(CALIBRATION_ERROR,),
    )
    return TemperatureEvaluation(temperature, estimates[CALIBRATION_ERROR])
