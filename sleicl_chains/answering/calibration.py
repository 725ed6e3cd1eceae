"""Calibrations: how often an answer of a given share is right."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Calibration:
    """How often answers of a given share are right: sigmoid(slope * logit(share) + offset) (Platt 1999).

    The order of the answers does not change, since the slope is not negative.
    """

    slope: float
    offset: float

    def of(self, share: float) -> float:
        """Return the probability that the likeliest label is right."""
        odds = self.slope * logit(share) + self.offset
        small = math.exp(-abs(odds))  # the other way round it would overflow
        return (1.0 if odds >= 0 else small) / (1 + small)


def logit(share: float) -> float:
    """Return log(share / (1 - share)), the share held away from 0 and 1."""
    share = min(max(share, 1e-4), 1 - 1e-4)
    return math.log(share / (1 - share))


def fit_calibration(shares: Sequence[float], right: Sequence[bool]) -> Calibration:
    """Fit a calibration on answers to rows that their reader was not fitted on.

    Args:
        shares: of the likeliest label, one an answer.
        right: whether that label is right. With fewer than ten rows, or all of a kind, only the mean counts.
    """
    rate = (sum(right) + 1) / (len(right) + 2)
    if len(right) < 10 or len(set(right)) < 2:
        return Calibration(0.0, logit(rate))
    from sklearn.linear_model import LogisticRegression

    logits = np.array([[logit(share)] for share in shares])
    model = LogisticRegression(C=1.0).fit(logits, list(right))
    slope = float(model.coef_[0][0])
    return Calibration(slope, float(model.intercept_[0])) if slope > 0 else Calibration(0.0, logit(rate))
