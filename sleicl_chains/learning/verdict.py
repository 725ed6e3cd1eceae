"""The verdict: one pair of prompts compared row by row, and what so many rows could have shown."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import NormalDist
from typing import TYPE_CHECKING, Literal

import numpy as np

from sleicl_chains.answering.recipes import AlsoTried, Finding, Verdict
from sleicl_chains.evaluation.summary import is_right
from sleicl_chains.learning.crossfit import Held
from sleicl_chains.statistics import paired_difference, sign_flips
from sleicl_chains.tasks.rows import Example

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

Tests = Literal["score", "right"]

LEVELS: dict[Tests, float] = {"score": 0.01, "right": 0.05}
"""Of the sign-flip test, by what it is on. On scores of cross-fitted readers it is set so low that "helps" and "hurts"
together come out at or below 5% where there is nothing to find, counted through the folds and readers
(benchmarks/LOG.md): rows share their fits, which the test does not know. Generated answers share nothing."""
POWER = 0.8
"""The smallest difference that can be shown is found this often."""
_DRAWS = 2_000
_GAINS: dict[Tests, tuple[float, float]] = {"score": (0.6, 2.0), "right": (1.0, 1.0)}
"""What a point of accuracy looks like: how much a row gains, and on how many rows in a hundred. Through the readers a
true gain of accuracy raised the mean score by 1.2 times as much (benchmarks/LOG.md), spread over more rows."""


@dataclass(frozen=True)
class Compared:
    """Two prompts on the same rows, each row answered by readers that were fitted on others."""

    ours: Sequence[Held]
    theirs: Sequence[Held]
    """Of the prompt without a grimoire."""
    rows: Sequence[Example]
    labels: Sequence[str]

    @cached_property
    def right(self) -> "NDArray[np.bool_]":
        """(n_rows,): which rows our prompt has right."""
        return rights(self.ours, self.rows, self.labels)

    @cached_property
    def baseline(self) -> "NDArray[np.bool_]":
        """(n_rows,): which rows the other has right."""
        return rights(self.theirs, self.rows, self.labels)

    @property
    def gains(self) -> "Array":
        """(n_rows,): what each row adds to the difference in accuracy: 1, 0 or -1."""
        return np.subtract(self.right, self.baseline, dtype=float)

    @property
    def tests(self) -> Tests:
        """What the test is on: the quadratic score of the probabilities where the reading gives any."""
        return "right" if any(one.score is None for one in (*self.ours, *self.theirs)) else "score"

    @property
    def level(self) -> float:
        """Below which p shows something."""
        return LEVELS[self.tests]

    @property
    def steps(self) -> "Array":
        """(n_rows,): what each row adds to what the test is on."""
        if self.tests == "right":
            return self.gains
        return np.array([(a.score or 0.0) - (b.score or 0.0) for a, b in zip(self.ours, self.theirs, strict=True)])

    @property
    def scored(self) -> list[float]:
        """What each row adds to the difference in accuracy as scores tell it; empty without scores.

        The rate holds for `blend` at an accuracy about .7; far below it a gain comes out too small.
        """
        size, rows = _GAINS["score"]
        return [] if self.tests == "right" else (self.steps / (size * rows)).tolist()


def rights(held: Sequence[Held], rows: Sequence[Example], labels: Sequence[str]) -> "NDArray[np.bool_]":
    """(n_rows,): which rows are right."""
    return np.array([is_right(one.label, row.answer, labels) for one, row in zip(held, rows, strict=True)])


def verdict_on(pair: tuple[str, str], found: Compared) -> Verdict:
    """Return what the test says of a pair, with the difference in accuracy and its interval beside it."""
    difference, low, high = paired_difference(found.right.tolist(), found.baseline.tolist())
    (p,) = sign_flips([found.steps.tolist()])
    return Verdict(
        finding=finding_of(p, found.level, float(found.steps.sum()), difference), pair=pair, difference=difference,
        low=low, high=high, p=p, n=len(found.rows), tested=found.tests, level=found.level,
        smallest_shown=smallest_shown(found), fixed=int((found.gains > 0).sum()), broken=int((found.gains < 0).sum()),
        accuracy=(float(found.right.mean()), float(found.baseline.mean())),
    )  # fmt: skip


def finding_of(p: float, level: float, total: float, difference: float) -> Finding:
    """Return the finding of a test: significant at the level, and accuracy not against it.

    Args:
        p: of the sign-flip test.
        level: below which p shows something.
        total: the sum of the steps that it was made on.
        difference: in accuracy.
    """
    if p >= level or total * difference < 0:
        return "no difference shown"
    return "helps" if total > 0 else "hurts"


def smallest_shown(found: Compared, *, seed: int = 0) -> float | None:
    """Return the smallest true difference in accuracy, in whole points, that such a test finds four times in five.

    Simulated from how far the two prompts were apart: rows are drawn from those seen, the sign of each left to chance,
    and as many of them as the difference says are made to gain. None where even all of them would not do.

    Args:
        found: the pair.
        seed: of the draws.
    """
    rng, shape = np.random.default_rng(seed), (_DRAWS, len(found.rows))
    drawn = rng.choice(found.steps, shape) * rng.choice((-1.0, 1.0), shape)
    order, limit, (size, rows) = rng.random(shape), NormalDist().inv_cdf(1 - found.level / 2), _GAINS[found.tests]
    for points in range(1, 101):
        steps = np.where(order < rows * points / 100, np.maximum(drawn, 0) + size, drawn)
        steps = np.clip(steps, -1, 1) if found.tests == "right" else steps
        # The sign-flip test in its normal approximation, less half a step on either side, since gains come in steps.
        strength = (steps.sum(axis=1) - size) / np.sqrt((steps**2).sum(axis=1) + 1e-12)
        if (strength > limit).mean() >= POWER:
            return points / 100
    return None


def also_tried(found: Sequence[tuple[str, str, Compared]], n: int) -> list[AlsoTried]:
    """Return prompts that were also tried, with one p for each that holds for all of them together.

    Args:
        found: arm, grimoire and comparison; some are on the first of the rows alone.
        n: all rows.
    """
    steps = [[*one.steps.tolist(), *[0.0] * (n - len(one.rows))] for _, _, one in found]
    ps = sign_flips(steps) if steps else []
    return [
        AlsoTried(arm=arm, grimoire=grimoire, difference=float(one.gains.mean()), p=p, n=len(one.rows))
        for (arm, grimoire, one), p in zip(found, ps, strict=True)
    ]
