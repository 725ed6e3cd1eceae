"""The numbers of the table: intervals, macro-F1, paired differences, and how far probabilities can be trusted."""

import math
from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple

_Z = 1.959963984540054
"""97.5% point of the normal distribution."""


def wilson(right: int, n: int) -> tuple[float, float]:
    """Return the 95% Wilson score interval of a rate (Wilson 1927), as two rates."""
    if n == 0:
        return 0.0, 1.0
    rate, square = right / n, _Z * _Z
    middle = (rate + square / (2 * n)) / (1 + square / n)
    half = _Z / (1 + square / n) * math.sqrt(rate * (1 - rate) / n + square / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def macro_f1(gold: Sequence[str], predicted: Sequence[str | None], labels: Sequence[str]) -> float:
    """Return the mean F1 of the labels; a missing prediction is a miss of its gold label.

    A label that neither occurs nor is predicted is left out of the mean.
    """
    scores = []
    for label in labels:
        hit = sum(g == p == label for g, p in zip(gold, predicted, strict=True))
        involved = sum(g == label for g in gold) + sum(p == label for p in predicted)
        if involved:
            scores.append(2 * hit / involved)
    return sum(scores) / len(scores) if scores else 0.0


def mcnemar(right: Sequence[bool], baseline: Sequence[bool]) -> float:
    """Return the exact two-sided p of McNemar's test (1947): are the rows that only one arm gets right split evenly?"""
    from scipy.special import bdtr

    won = sum(a and not b for a, b in zip(right, baseline, strict=True))
    lost = sum(b and not a for a, b in zip(right, baseline, strict=True))
    return min(1.0, 2 * float(bdtr(min(won, lost), won + lost, 0.5)))


def paired_difference(
    right: Sequence[bool], baseline: Sequence[bool], *, seed: int = 0, resamples: int = 10_000
) -> tuple[float, float, float]:
    """Return the difference of two accuracies on the same rows and its 95% bootstrap interval.

    Rows are drawn with replacement, both arms together (paired percentile bootstrap). Random with
    a seed of its own, so the same rows give the same interval. Without rows it is 0, from -1 to 1.
    """
    import numpy as np

    if not len(right) and not len(baseline):
        return 0.0, -1.0, 1.0

    steps = np.array([int(ours) - int(theirs) for ours, theirs in zip(right, baseline, strict=True)])
    # Only how often each of -1, 0 and 1 is drawn matters, so one multinomial stands for a resample.
    counts = np.array([(steps == value).sum() for value in (-1, 0, 1)])
    draws = np.random.default_rng(seed).multinomial(len(steps), counts / len(steps), size=resamples)
    means = (draws[:, 2] - draws[:, 0]) / len(steps)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(steps.mean()), float(low), float(high)


class Bin(NamedTuple):
    """Answers of about the same probability."""

    rows: int
    probability: float
    """Their mean."""
    accuracy: float


def calibration_bins(probability: Sequence[float], right: Sequence[bool], bins: int = 10) -> list[Bin]:
    """Return at most `bins` bins of as many answers each as can be, by rising probability.

    Where a bin ends among answers of one probability, each of them counts as right as they are on
    average, so the order of the rows does not matter.
    """
    shares = _rising(probability, right)
    ends = [round(number * len(shares) / bins) for number in range(bins + 1)]
    found = [shares[start:end] for start, end in zip(ends, ends[1:], strict=False) if end > start]
    return [Bin(len(part), _mean([p for p, _ in part]), _mean([share for _, share in part])) for part in found]


def expected_calibration_error(probability: Sequence[float], right: Sequence[bool], bins: int = 10) -> float:
    """Return the mean distance between a bin's probability and its accuracy, 0 to 1; 0 without answers.

    Guo et al. 2017 (arXiv 1706.04599), section 2, but with bins of equal mass instead of equal width:
    a small model's probabilities crowd in a few of the latter.
    """
    found = calibration_bins(probability, right, bins)
    return math.fsum(part.rows * abs(part.probability - part.accuracy) for part in found) / max(1, len(right))


def risk_coverage(probability: Sequence[float], right: Sequence[bool]) -> tuple[list[tuple[float, float]], float]:
    """Return (coverage, risk) for each number of answers kept, the surest first, and the mean of the risks.

    Coverage is the share of answers kept and risk the share of wrong ones among those (Geifman &
    El-Yaniv 2017, arXiv 1705.08500); the mean over all coverages is the area under the curve, AURC.
    Answers of one probability are kept in random order, and the risk is what that gives on average.
    """
    shares = _rising(probability, right)[::-1]
    points, wrong = [], 0.0
    for kept, (_, share) in enumerate(shares, 1):
        wrong += 1 - share
        points.append((kept / len(shares), wrong / kept))
    return points, _mean([risk for _, risk in points]) if points else 0.0


def _rising(probability: Sequence[float], right: Sequence[bool]) -> list[tuple[float, float]]:
    """Return (probability, share right among all of that probability) of each answer, by rising probability."""
    ordered = sorted(zip(probability, right, strict=True))
    shares: list[tuple[float, float]] = []
    for value, group in groupby(ordered, key=lambda pair: pair[0]):
        hits = [hit for _, hit in group]
        shares += [(value, sum(hits) / len(hits))] * len(hits)
    return shares


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
