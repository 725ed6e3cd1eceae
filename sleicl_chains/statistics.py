"""The numbers of the table: intervals, macro-F1 and paired differences. All over every row."""

import math
from collections.abc import Sequence

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
    won = sum(a and not b for a, b in zip(right, baseline, strict=True))
    lost = sum(b and not a for a, b in zip(right, baseline, strict=True))
    ways = sum(math.comb(won + lost, k) for k in range(min(won, lost) + 1))
    return min(1.0, float(2 * ways / 2 ** (won + lost)))


def paired_difference(
    right: Sequence[bool], baseline: Sequence[bool], *, seed: int = 0, resamples: int = 10_000
) -> tuple[float, float, float]:
    """Return the difference of two accuracies on the same rows and its 95% bootstrap interval.

    Rows are drawn with replacement, both arms together (paired percentile bootstrap). Random with
    a seed of its own, so the same rows give the same interval.
    """
    import numpy as np

    steps = np.array([int(ours) - int(theirs) for ours, theirs in zip(right, baseline, strict=True)])
    # Only how often each of -1, 0 and 1 is drawn matters, so one multinomial stands for a resample.
    counts = np.array([(steps == value).sum() for value in (-1, 0, 1)])
    draws = np.random.default_rng(seed).multinomial(len(steps), counts / len(steps), size=resamples)
    means = (draws[:, 2] - draws[:, 0]) / len(steps)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(steps.mean()), float(low), float(high)
