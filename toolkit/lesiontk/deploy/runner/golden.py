"""The outputs expected of the device, and how those that it returns agree with them."""

from __future__ import annotations

from typing import Any

import numpy as np

from lesiontk.deploy.runner.classifier import Classifier
from lesiontk.deploy.runner.contract import Bundle, Golden
from lesiontk.deploy.runner.decision import are_probabilities
from lesiontk.deploy.runner.documents import Agreement, StatusAgreement
from lesiontk.evaluate.input_checks import STATUSES


def read_golden(bundle: Bundle) -> tuple[Any, Any, Any]:
    """Return the golden images uint8 [N, S, S, 3], their probabilities float32 [N, C] and, with
    input checks, the place of their status in `STATUSES`, otherwise None."""
    prefix = bundle.golden.prefix
    with np.load(bundle.folder / bundle.golden.file) as golden:
        statuses = golden[prefix + "statuses"] if bundle.has_input_checks else None
        return golden["images"], golden[prefix + "probabilities"], statuses


def compare(expected: Any, received: Any, golden: Golden) -> Agreement:
    """Return the agreement of outputs float32 [N, C] with those expected, within limits or not."""
    finite = bool(np.isfinite(received).all())
    valid = are_probabilities(received)
    agreement = float((expected.argmax(axis=1) == received.argmax(axis=1)).mean())
    drift = float(np.abs(expected - received).mean()) if finite else None
    least, most = golden.min_agreement, golden.max_mean_drift
    return {
        "n": len(expected),
        "finite": finite,
        "probabilities": valid,
        "agreement": agreement,
        "min_agreement": least,
        "mean_drift": drift,
        "max_mean_drift": most,
        "as_expected": valid and agreement >= least and drift is not None and drift <= most,
    }


def compare_statuses(expected: Any, classifier: Classifier, images: Any) -> StatusAgreement:
    """Return the agreement of the input checks with those expected; without any none is needed."""
    received = classifier.find_statuses(images)
    if received is None:
        return {"n": 0, "agreement": None, "as_expected": True}
    same = [STATUSES[code] == status for code, status in zip(expected, received)]
    agreement = sum(same) / len(same)
    least = classifier.bundle.golden.min_agreement
    return {
        "n": len(same),
        "agreement": agreement,
        "min_agreement": least,
        "as_expected": agreement >= least,
    }
