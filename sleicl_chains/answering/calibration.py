"""Calibrations: how often an answer of a given share is right."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sleicl_chains.answering.shares import log_softmax

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]


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


_TEMPERATURES = (0.2, 5.0)
"""Least and most. What is pooled of three that know different things is a third as bold as it might be."""


def tempered(shares: "Array", temperature: float) -> "Array":
    """Return softmax(log share / temperature), (n, n_labels): above 1 more even, below 1 bolder.

    Guo et al. 2017 (arXiv 1706.04599, section 4.2).
    """
    # A share of 0 would cost infinitely much; one in a million is the least that counts.
    chances: Array = np.exp(log_softmax(np.log(np.maximum(shares, 1e-6)) / temperature))
    return chances


def best_temperature(shares: "Array", gold: "NDArray[np.int_]") -> float:
    """Return the one temperature at which the right labels, by their columns, are likeliest altogether."""
    from scipy.optimize import minimize_scalar

    rows = np.arange(len(gold))

    def loss(power: float) -> float:
        return -float(np.log(tempered(shares, math.exp(power))[rows, gold]).sum())

    bounds = [math.log(end) for end in _TEMPERATURES]
    # Not of a few steps: two prompts whose shares differ by chance would end on two of them.
    return math.exp(minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-3}).x)
