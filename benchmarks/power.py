"""How often a true difference is found: by right or wrong, by the score of probabilities, and by the gate that was.

    python -m benchmarks.power [--gains .05,.10,.15] [--apart .05,.15,.25] [--rows 50,100,200,400] [--draws 4000]

Made-up rows, without models and readers: under each of two prompts a row has a margin, normal around a mean, and is
right where it is above 0; the means make the accuracies, and the correlation of the two margins makes the share of rows
on which the prompts disagree. Probabilities are the true ones of such margins. The gate that was (until November 2026)
set 40% of the rows aside, and said "helps" where McNemar's exact test had p < .05, the interval was above 0 and the
other 60% pointed the same way.

What it costs that rows share fits is not in it: `false_alarms.py --gains` counts through the readers.
"""

import argparse
from collections.abc import Sequence
from functools import cache
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import bdtr
from scipy.stats import multivariate_normal, norm

from sleicl_chains.learning.verdict import LEVELS

Array = NDArray[np.float64]
ACCURACY = 0.75
"""Of the two prompts on average."""


def main() -> None:
    """Print the table."""
    options = _options()
    rng = np.random.default_rng(0)
    print(f"levels {LEVELS}; accuracy {ACCURACY} on average; {options.draws} draws")
    print("| true difference | disagreement | rows | right or wrong | score | the gate that was |")
    print("|---:|---:|---:|---:|---:|---:|")
    for gain, apart, n in product([0.0, *options.gains], options.apart, options.rows):
        if gain <= apart:
            steps, scores = draws(rng, (options.draws, n), gain, apart)
            found = (_exact(steps) < LEVELS["right"], _flipped(scores) < LEVELS["score"])
            above = steps.mean(axis=1) > 0
            rates = [(one & above & (scores.mean(axis=1) > 0)).mean() if at else (one & above).mean()
                     for at, one in enumerate(found)]  # fmt: skip
            print(f"| {gain:.2f} | {apart:.2f} | {n} | {rates[0]:.3f} | {rates[1]:.3f} | {_gate(steps).mean():.3f} |")


def draws(rng: np.random.Generator, shape: tuple[int, int], gain: float, apart: float) -> tuple[Array, Array]:
    """Return what each row adds, (draws, rows): to the difference in accuracy, and to that in quadratic score."""
    low, high = norm.ppf(ACCURACY - gain / 2), norm.ppf(ACCURACY + gain / 2)
    alike = correlation(low, high, apart)
    first = rng.normal(size=shape)
    second = alike * first + (1 - alike**2) ** 0.5 * rng.normal(size=shape)
    theirs, ours = low + first, high + second
    steps: Array = np.subtract(ours > 0, theirs > 0, dtype=float)
    return steps, _score(ours, high) - _score(theirs, low)


@cache
def correlation(low: float, high: float, apart: float) -> float:
    """Return the correlation of two normal margins with these means at which they differ in sign so often."""

    def excess(alike: float) -> float:
        both = multivariate_normal.cdf([0, 0], mean=[low, high], cov=[[1, alike], [alike, 1]], allow_singular=True)
        return float(norm.cdf(-low) + norm.cdf(-high) - 2 * both - apart)

    return 0.99999 if excess(0.99999) > 0 else float(brentq(excess, -0.5, 0.99999, xtol=1e-4))


def _score(margin: Array, mean: float) -> Array:
    """Return the quadratic score of the true probability of the right one of two labels, 1 / (1 + e^(-2 mean z))."""
    share = 1 / (1 + np.exp(-2 * mean * margin))
    found: Array = 1 - 2 * (1 - share) ** 2
    return found


def _exact(steps: Array) -> Array:
    """Return McNemar's exact p of each draw."""
    won, lost = (steps > 0).sum(axis=1), (steps < 0).sum(axis=1)
    found: Array = np.minimum(1, 2 * bdtr(np.minimum(won, lost), won + lost, 0.5))
    return found


def _flipped(scores: Array) -> Array:
    """Return the p of the sign-flip test of each draw, in its normal approximation."""
    found: Array = 2 * norm.sf(np.abs(scores.sum(axis=1)) / np.sqrt((scores**2).sum(axis=1) + 1e-12))
    return found


def _gate(steps: Array) -> NDArray[np.bool_]:
    """Return whether the gate that was says "helps"."""
    cut = round(0.6 * steps.shape[1])
    choose, confirm = steps[:, :cut], steps[:, cut:]
    mean = confirm.mean(axis=1)
    low = mean - norm.ppf(0.975) * confirm.std(axis=1) / confirm.shape[1] ** 0.5
    found: NDArray[np.bool_] = (_exact(confirm) < 0.05) & (low > 0) & (choose.mean(axis=1) > 0)
    return found


def _options() -> argparse.Namespace:
    def numbers(text: str) -> Sequence[float]:
        return [float(part) for part in text.split(",")]

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gains", type=numbers, default=[0.05, 0.10, 0.15])
    parser.add_argument("--apart", type=numbers, default=[0.05, 0.15, 0.25])
    parser.add_argument(
        "--rows", type=lambda text: [int(part) for part in text.split(",")], default=[50, 100, 200, 400]
    )
    parser.add_argument("--draws", type=int, default=4000)
    return parser.parse_args()


if __name__ == "__main__":
    main()
