"""The numbers of the table: intervals, macro-F1, paired differences, and how far probabilities can be trusted."""

import math
from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple

_Z = 1.959963984540054
"""97.5% point of the normal distribution."""
_FLIPS_AT_ONCE = 500
"""All flips of many rows would not fit into memory."""


def wilson(right: int, n: int) -> tuple[float, float]:
    """Return the 95% Wilson score interval of a rate, as two rates.

    Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", JASA 22 (1927): the rates p for
    which |right/n - p| <= z * sqrt(p (1 - p) / n). Unlike rate +- z * error it holds on few rows and near 0 and 1.
    """
    if n == 0:
        return 0.0, 1.0
    rate, square = right / n, _Z * _Z
    # The two ends solve that equation, quadratic in p. Its middle is the rate drawn towards 1/2.
    middle = (rate + square / (2 * n)) / (1 + square / n)
    # Half their distance: the error of the rate itself, and what z rows half right and half wrong would add.
    half = _Z / (1 + square / n) * math.sqrt(rate * (1 - rate) / n + square / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def macro_f1(gold: Sequence[str], predicted: Sequence[str | None], labels: Sequence[str]) -> float:
    """Return the mean F1 of the labels; a missing prediction is a miss of its gold label.

    A label that neither occurs nor is predicted is left out of the mean.
    """
    scores = []
    for label in labels:
        # F1 = 2 hits / (gold + predicted), the same as the harmonic mean of precision and recall.
        hit = sum(g == p == label for g, p in zip(gold, predicted, strict=True))
        involved = sum(g == label for g in gold) + sum(p == label for p in predicted)
        if involved:
            scores.append(2 * hit / involved)
    return sum(scores) / len(scores) if scores else 0.0


def mcnemar(right: Sequence[bool], baseline: Sequence[bool]) -> float:
    """Return the exact two-sided p of McNemar's test: are the rows that only one arm gets right split evenly?

    McNemar, "Note on the sampling error of the difference between correlated proportions", Psychometrika 12 (1947).
    """
    from scipy.special import bdtr

    # Rows that both arms get right, or both wrong, say nothing about which is better.
    won = sum(a and not b for a, b in zip(right, baseline, strict=True))
    lost = sum(b and not a for a, b in zip(right, baseline, strict=True))
    # Without a difference each other row is a fair coin: P(at most the smaller number of heads), and as much again for
    # the other side. The two sides overlap where they are equal, hence at most 1.
    return min(1.0, 2 * float(bdtr(min(won, lost), won + lost, 0.5)))


def sign_flips(differences: Sequence[Sequence[float]], *, seed: int = 0, flips: int = 10_000) -> list[float]:
    """Return the two-sided p of each of several paired comparisons on the same rows, for all of them together.

    Where nothing distinguishes the two sides, each row's difference might as well have the other sign. All differences
    of a row are flipped together, and each comparison is held against the largest statistic of each flip, so that the
    chance of any p below a level is at most that level (Westfall and Young, "Resampling-Based Multiple Testing", 1993,
    section 2.5). Random with a seed of its own, so the same rows give the same p.

    Args:
        differences: a sequence a comparison, each with a number a row; 0 where a row was not compared.
        seed: of the flips.
        flips: how many.
    """
    import numpy as np

    steps = np.array(differences, dtype=float).reshape(len(differences), -1)
    # The sum over the rows in units of its spread under flips, sqrt(sum of squares), so that comparisons weigh alike.
    spread = np.sqrt((steps**2).sum(axis=1))
    unit = steps / np.where(spread > 0, spread, 1.0)[:, None]
    rng = np.random.default_rng(seed)
    blocks = [min(_FLIPS_AT_ONCE, flips - at) for at in range(0, flips, _FLIPS_AT_ONCE)]
    signs = (rng.choice((-1.0, 1.0), size=(count, steps.shape[1])) for count in blocks)
    largest = np.concatenate([np.abs(each @ unit.T).max(axis=1) for each in signs])
    # What was seen is one of the flips as well, so p is never 0. A hair less, since sums of equal numbers may differ.
    found = np.abs(unit.sum(axis=1))[:, None]
    return [float(p) for p in (1 + (largest >= found - 1e-9).sum(axis=1)) / (1 + flips)]


def paired_difference(
    right: Sequence[bool], baseline: Sequence[bool], *, seed: int = 0, resamples: int = 10_000
) -> tuple[float, float, float]:
    """Return the difference of two accuracies on the same rows and its 95% bootstrap interval.

    The paired percentile bootstrap (Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13). Random
    with a seed of its own, so the same rows give the same interval. Without rows it is 0, from -1 to 1.
    """
    import numpy as np

    if not len(right) and not len(baseline):
        return 0.0, -1.0, 1.0

    # What each row adds to the difference: 1 where only the arm is right, -1 where only the baseline is, else 0.
    steps = np.array([int(ours) - int(theirs) for ours, theirs in zip(right, baseline, strict=True)])
    # A resample draws n rows with replacement, both arms together. Only how often each of -1, 0 and 1 is drawn
    # matters, so one multinomial stands for it.
    counts = np.array([(steps == value).sum() for value in (-1, 0, 1)])
    draws = np.random.default_rng(seed).multinomial(len(steps), counts / len(steps), size=resamples)
    # The difference of each resample; the interval holds the middle 95% of them.
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
    """Return at most `bins` bins, by rising probability, as equal in number of answers as can be.

    Answers of one probability each count as right as they are on average, so that where a bin ends among them
    the order of the rows does not matter.
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
    # sum over the bins of (rows of the bin / n) * |mean probability - accuracy|, their equation (3)
    return math.fsum(part.rows * abs(part.probability - part.accuracy) for part in found) / max(1, len(right))


def risk_coverage(probability: Sequence[float], right: Sequence[bool]) -> tuple[list[tuple[float, float]], float]:
    """Return (coverage, risk) for each number of answers kept, the surest first, and the mean of the risks.

    Coverage is the share of answers kept and risk the share of wrong ones among those (Geifman &
    El-Yaniv 2017, arXiv 1705.08500); the mean over all coverages is the area under the curve, AURC.
    Answers of one probability are kept in random order, and the risk is what that gives on average.
    """
    # The surest answers first; at each number kept, the risk is the share of wrong ones so far.
    shares = _rising(probability, right)[::-1]
    points, wrong = [], 0.0
    for kept, (_, share) in enumerate(shares, 1):
        wrong += 1 - share
        points.append((kept / len(shares), wrong / kept))
    return points, _mean([risk for _, risk in points]) if points else 0.0


def _rising(probability: Sequence[float], right: Sequence[bool]) -> list[tuple[float, float]]:
    """Return each answer by rising probability: its probability, and the share right among those of the same one."""
    ordered = sorted(zip(probability, right, strict=True))
    shares: list[tuple[float, float]] = []
    for value, group in groupby(ordered, key=lambda pair: pair[0]):
        hits = [hit for _, hit in group]
        shares += [(value, sum(hits) / len(hits))] * len(hits)
    return shares


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
