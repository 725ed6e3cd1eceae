"""Shares: a probability for each label, which add up to 1."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

LEAST = 1e-12
"""What a share is taken for at least where its logarithm is needed."""


def softmax(labels: Sequence[str], logits: "Array") -> dict[str, float]:
    """Return the shares of labels, from one number each."""
    # Less the largest, which the quotient leaves open, so that no power overflows.
    powers = np.exp(logits - logits.max())
    return dict(zip(labels, map(float, powers / powers.sum()), strict=True))


def log_softmax(logits: "Array") -> "Array":
    """Return the logarithms of the shares of labels, a row an observation; (n_observations, n_labels)."""
    top = logits - logits.max(axis=1, keepdims=True)
    result: Array = top - np.log(np.exp(top).sum(axis=1, keepdims=True))
    return result


def pooled(shares: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the logarithmic opinion pool: the geometric mean of several shares, scaled to add up to 1.

    Genest and Zidek, "Combining Probability Distributions", Statistical Science 1 (1986).
    """
    labels = list(shares[0])
    # The softmax of the mean of log p is the geometric mean, scaled.
    return softmax(labels, np.mean([[math.log(max(one[label], LEAST)) for label in labels] for one in shares], axis=0))


def likeliest(shares: Mapping[str, float]) -> tuple[str, float]:
    """Return the label of the largest share, the first of equal ones, and that share."""
    label = max(shares, key=lambda name: shares[name])
    return label, shares[label]
