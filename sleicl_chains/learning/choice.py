"""The choice: which prompt is expected to do best, by what was measured here and what is known of other tasks.

It is not the verdict. A hundred rows seldom show a difference, and a recipe has to take some prompt all the same.
"""

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from math import fsum
from typing import Any

from langchain_core.language_models import BaseChatModel

from sleicl_chains.answering.readings import Mode
from sleicl_chains.answering.recipes import Choice, Verdict
from sleicl_chains.errors import SleiclError
from sleicl_chains.files import Home
from sleicl_chains.models.abilities import weights_digest
from sleicl_chains.models.reading import known_reading
from sleicl_chains.tasks.labels import fold

LEAST_GAIN = 0.01
"""Below this no grimoire is taken: it makes each prompt longer."""
SPREAD = 0.05
"""Between tasks, at least, and where nothing is known of a model. Tasks that happen to agree do not show that all do:
over twelve public ones it was .022 to .044, and a task whose labels are a house's own lies far outside. Of .02 to .08,
.05 chose best on re-split rows of eight tasks, if by little (benchmarks/LOG.md)."""


@dataclass(frozen=True)
class Known:
    """What a prompt gained on other tasks, in accuracy."""

    mean: float = 0.0
    spread: float = SPREAD
    """Standard deviation of what a task gains around it."""
    tasks: int = 0
    model: str = ""


@dataclass(frozen=True)
class Candidate:
    """A prompt that the recipe may take, against the pair's prompt without a grimoire."""

    arm: str
    shows_grimoire: bool
    gains: Sequence[float]
    """What each row adds to the difference in accuracy: 1, 0 or -1; empty where nothing was asked."""
    known: Known
    p: float | None = None
    """Of the difference, where it is not the pair's own: adjusted for all that was also tried."""
    scored: Sequence[float] = ()
    """The same as told by quadratic scores, as a difference in accuracy; chance sways it less. Empty without scores."""

    @property
    def difference(self) -> float:
        """Measured here; 0 without rows."""
        return _mean(self.gains)

    @property
    def expected(self) -> float:
        """The expected gain: (m/t^2 + d/s^2) / (1/t^2 + 1/s^2).

        That is the mean of a normal distribution known from other tasks (m, t) once a measurement (d, s) has come in
        (Gelman et al., "Bayesian Data Analysis", 3rd edition, 2013, equation 2.10).
        """
        steps = self.scored or self.gains
        if not steps:
            return self.known.mean
        n, mean = len(steps), _mean(steps)
        # At least as much variance as one row in n makes: rows that never differ do not show that none would.
        variance = max(fsum((step - mean) ** 2 for step in steps) / n, 1 / n)
        here, others = n / variance, 1 / self.known.spread**2
        return (self.known.mean * others + mean * here) / (others + here)

    @property
    def contradicted(self) -> bool:
        """Whether it was right less often while its probabilities look better."""
        return _mean(self.scored) > 0 > self.difference

    @property
    def ground(self) -> str:
        """What was measured, what is known, and what is expected of both, in words."""
        known = self.known
        here = f"{self.arm} {self.difference:+.3f} on {len(self.gains)} rows" if self.gains else self.arm
        here += f" ({_mean(self.scored):+.3f} told from probabilities, which is weighed)" if self.scored else ""
        here += "" if self.p is None else f" (p = {self.p:.3f})"
        others = (
            f"on {known.tasks} other tasks {known.model} gained {known.mean:+.3f} by it"
            if known.tasks
            else "of other tasks nothing is known for this model and reading"
        )
        return f"{here}; {others}; expected {self.expected:+.3f}"


def _mean(steps: Sequence[float]) -> float:
    return fsum(steps) / max(1, len(steps))


def choose(baseline: str, candidates: Sequence[Candidate], verdict: Verdict, mode: Mode) -> Choice:
    """Return the prompt of the highest expected gain, and say on what ground.

    A grimoire is taken only where it is expected to gain `LEAST_GAIN` on the best prompt without one, and never
    where the verdict is that it hurts. No prompt is taken whose probabilities and right answers contradict each other.

    Args:
        baseline: the pair's prompt without a grimoire, whose gain is 0.
        candidates: the others, the cheaper first.
        verdict: of the pair.
        mode: how all of them are read.
    """
    none = Candidate(baseline, shows_grimoire=False, gains=(), known=Known())
    candidates = [one for one in candidates if not one.contradicted]
    without = max([none, *(one for one in candidates if not one.shows_grimoire)], key=lambda one: one.expected)
    shown = [one for one in candidates if one.shows_grimoire and verdict.finding != "hurts"]
    best = max(shown, key=lambda one: one.expected, default=None)
    if best and best.expected - without.expected >= LEAST_GAIN:
        # What was shown was shown of the pair: that the same grimoire helps without examples was not tested.
        shown_here = verdict.finding == "helps" and verdict.pair is not None and best.arm == verdict.pair[0]
        sure = "Shown on these rows" if shown_here else "Not shown on these rows alone"
        return Choice(arm=best.arm, mode=mode, expected=best.expected, ground=f"taken: {best.ground}. {sure}")
    ground = [without.ground] if without is not none else []
    if best:
        ground.append(
            f"no grimoire: {best.ground}, and for less than {LEAST_GAIN:+.3f} over {without.arm} none is taken"
        )
    elif verdict.finding == "hurts":
        ground.append("no grimoire, since it hurts")
    return Choice(
        arm=without.arm, mode=mode, expected=without.expected, ground="; ".join(ground) or "no grimoire to weigh"
    )


def known_gain(weak: BaseChatModel, mode: Mode, arm: str, against: str, task: str, home: Home | None = None) -> Known:
    """Return what a prompt gained on another, read the same way by the same model, on other tasks than this one.

    Nothing (a mean of 0) where the model, the reading or the pair is not known, or the model is known not to follow
    guides.
    """
    key = (_weights(weak), mode, arm, against)
    found = next((one for one in _gains() if _key(one) == key), None)
    reading = known_reading(weak, home)
    if found is None or (reading and not reading.follows_guides):
        return Known()
    tasks = [one for name, one in found["tasks"].items() if fold(name) != fold(task)]
    return _pooled(tasks, found["model"]) if len(tasks) > 1 else Known()


def _key(found: dict[str, Any]) -> tuple[str, str, str, str]:
    return found["weights"], found["mode"], found["arm"], found["against"]


def _weights(weak: BaseChatModel) -> str:
    with suppress(SleiclError, TypeError):
        return weights_digest(weak)
    return ""


def _pooled(tasks: Sequence[dict[str, float]], model: str) -> Known:
    """Return the mean over tasks, and how far a new task may be from it.

    The spread between tasks is what is left of the variance seen when that of the measurements is taken off (the moment
    estimate of DerSimonian and Laird, "Meta-analysis in clinical trials", 1986, tasks weighing alike); that the mean is
    of few tasks is added.
    """
    gains = [one["difference"] for one in tasks]
    mean = fsum(gains) / len(gains)
    seen = fsum((gain - mean) ** 2 for gain in gains) / (len(gains) - 1)
    chance = fsum(one["error"] ** 2 for one in tasks) / len(tasks)
    between = max(SPREAD**2, seen - chance)
    return Known(mean, (between + (between + chance) / len(tasks)) ** 0.5, len(tasks), model)


@cache
def _gains() -> list[dict[str, Any]]:
    text = (files("sleicl_chains.learning") / "gains.json").read_text(encoding="utf-8")
    found: list[dict[str, Any]] = json.loads(text)
    return found
