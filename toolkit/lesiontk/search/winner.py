"""What choosing the best of many candidates does to the estimate of the chosen one.

The best of several noisy values is too good on average. The bootstrap-bias-corrected estimate
(BBC-CV, algorithm 2 of Tsamardinos, Greasidou and Borboudakis 2018, Machine Learning 107, p. 1895)
repeats the choice: on each resample of lesions the best candidate is chosen again, and scored on
the lesions that are not in that resample. The mean of these scores is unbiased for a choice on the
share 1 - 1/e of the lesions, so it is slightly pessimistic where candidates really differ. All
candidates are scored on the same resamples, which takes their correlation into account.

From each score the difference of that candidate's own mean outside to its value on all lesions is
subtracted. It is 0 for a mean over lesions; a mean over classes, of which fewer lesions have fewer,
differs even where nothing was chosen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from lesiontk.document import Record
from lesiontk.errors import DataError
from lesiontk.evaluate.bootstrap import iterate_bootstrap_weights
from lesiontk.evaluate.metrics import FloatArray, IntArray, mean_of_defined

SOURCE = (
    "Tsamardinos, Greasidou and Borboudakis 2018, Bootstrapping the out-of-sample predictions for "
    "efficient and accurate cross-validation, Machine Learning 107, algorithm 2 (BBC-CV)"
)
Scoring = Callable[[FloatArray], FloatArray]
"""Maps weights [B, N] of the images to a candidate's metric [B]."""


@dataclass(frozen=True, slots=True)
class WinnerEstimate(Record):
    """The best of `candidates` in a metric: as measured, and corrected for the choice.

    `optimism` is the part of the measured value that the choice among candidates explains; where a
    lower value is better, it is positive too. `chosen_again` is the share of resamples in which the
    same candidate is the best.
    """

    DERIVED: ClassVar[tuple[str, ...]] = ("optimism",)

    metric: str
    candidates: int
    measured: float
    corrected: float
    lower_is_better: bool
    chosen_again: float
    resamples: int

    @property
    def optimism(self) -> float:
        """By how much the measured value is too good."""
        difference = self.measured - self.corrected
        return -difference if self.lower_is_better else difference


def estimate_winner(
    metric: str,
    candidates: Sequence[Scoring],
    groups: Sequence[str],
    *,
    lower_is_better: bool = False,
    resamples: int = 1000,
    seed: int = 0,
) -> WinnerEstimate:
    """Return the estimate of the best of one or more candidates; `groups` are the N lesions.

    Raises `DataError` without candidates, and if the metric is undefined for all of them.
    """
    if not candidates:
        raise DataError("no candidate was measured; expected at least one.")
    sign = -1.0 if lower_is_better else 1.0
    whole = np.array([score(np.ones((1, len(groups))))[0] for score in candidates])
    if np.isnan(whole).all():
        raise DataError(f"{metric} is undefined for all candidates on {len(groups)} images.")
    best = int(np.nanargmax(sign * whole))
    picked: list[IntArray] = []
    apart: list[FloatArray] = []
    for weights in iterate_bootstrap_weights(groups, resamples=resamples, seed=seed):
        outside = (weights == 0).astype(np.float64)
        rows = outside.any(axis=1)
        if not rows.any():
            continue
        inside = np.stack([sign * score(weights[rows]) for score in candidates])
        picked.append(np.where(np.isnan(inside), -np.inf, inside).argmax(axis=0))
        apart.append(np.stack([score(outside[rows]) for score in candidates]))
    scores = np.concatenate(apart, axis=1) if apart else np.full((len(candidates), 0), np.nan)
    chosen = np.concatenate(picked) if picked else np.zeros(0, dtype=np.int64)
    bias = mean_of_defined(scores) - whole
    corrected = (scores - bias[:, None])[chosen, np.arange(len(chosen))]
    if np.isnan(corrected).all():
        raise DataError(
            f"{metric} is undefined outside of every resample of {len(set(groups))} lesions; "
            "expected more validation lesions."
        )
    return WinnerEstimate(
        metric=metric,
        candidates=len(candidates),
        measured=float(whole[best]),
        corrected=float(np.nanmean(corrected)),
        lower_is_better=lower_is_better,
        chosen_again=float((chosen == best).mean()),
        resamples=len(chosen),
    )
