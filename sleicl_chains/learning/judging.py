"""Candidates (a prompt and a way to read the answer) and how well each answers rows that it was not fitted on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sleicl_chains.answering.calibration import Calibration, fit_calibration
from sleicl_chains.answering.fitting import fit_reader, held_out_linear
from sleicl_chains.answering.observer import Observer
from sleicl_chains.answering.priors import mean_shares, prior_texts
from sleicl_chains.answering.readers import PriorReader, Reader
from sleicl_chains.answering.readings import Block, Mode, Prior, needs_labelled_rows
from sleicl_chains.answering.recipes import Trial
from sleicl_chains.answering.shares import likeliest, pooled
from sleicl_chains.evaluation.summary import is_right
from sleicl_chains.learning.survey import Survey
from sleicl_chains.statistics import macro_f1
from sleicl_chains.tasks.cards import Task
from sleicl_chains.tasks.rows import Example
from sleicl_chains.tasks.splits import balance, folds

_TEMPERATURES = (0.25, 0.35, 0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0)
"""Down to a quarter: what is pooled of three that know different things is a third as bold as it might be."""


@dataclass(frozen=True)
class Candidate:
    """A prompt and a way to read the answer."""

    setup: Observer
    mode: Mode
    prior: Prior

    @property
    def name(self) -> str:
        """The prompt, with how it is read."""
        how = {"score": self.prior, "generate": "generate"}.get(self.mode, "")
        return self.setup.name + (f" / {how}" if how else f"+{self.mode}")

    @property
    def shows_grimoire(self) -> bool:
        """Whether a grimoire stands in the prompt."""
        return self.setup.arm.shows_grimoire


@dataclass
class Judged:
    """A candidate with its cross-validated answers."""

    candidate: Candidate
    predictions: list[str | None]
    shares: list[float]
    """Of the predicted label, a row."""
    right: list[bool]
    losses: list[float]
    """What the answers cost, a row: cross-entropy, or 1 for a wrong one where answers are generated."""
    macro_f1: float | None
    cost: float
    """Mean prompt tokens."""
    dropped: bool = False

    @property
    def loss(self) -> float:
        """What candidates are compared by."""
        return sum(self.losses) / len(self.losses)

    def clearly_better(self, other: "Judged") -> bool:
        """Say whether the loss is lower by more than one standard error of the difference, paired by row.

        By this rule Breiman et al. hold to the plainer of two models ("Classification and Regression Trees", 1984,
        section 3.4.3).
        """
        gains = np.subtract(other.losses, self.losses)
        return bool(gains.mean() > gains.std(ddof=1) / len(gains) ** 0.5)

    def calibration(self) -> Calibration:
        """Fit how often answers of a given share are right."""
        answered = [at for at, label in enumerate(self.predictions) if label is not None]
        return fit_calibration([self.shares[at] for at in answered], [self.right[at] for at in answered])

    def trial(self) -> Trial:
        """Return what a recipe keeps of it."""
        shown = self.candidate.setup.grimoire if self.candidate.shows_grimoire else None
        return Trial(
            name=self.candidate.name, grimoire=shown.id if shown else None, n=len(self.right),
            accuracy=sum(self.right) / len(self.right), macro_f1=self.macro_f1,
            loss=None if self.candidate.mode == "generate" else self.loss,
            prompt_tokens=self.cost, dropped=self.dropped,
        )  # fmt: skip


@dataclass(frozen=True)
class Judge:
    """Fits and judges candidates on rows that a survey has asked. No model calls."""

    task: Task
    survey: Survey
    seed: int
    """Decides which texts the prior `mean` reads."""
    _known: dict[Any, list[dict[str, float]]] = field(default_factory=dict, repr=False, compare=False)

    def judge(self, candidate: Candidate, rows: Sequence[Example]) -> Judged:
        """Judge by cross-validation; a row without an answer counts as wrong, and its loss is that of a blind guess."""
        labels, golds = self.task.labels, [row.answer for row in rows]
        if candidate.mode == "generate":
            said = [(self.survey.said(candidate.setup, row), 1.0) for row in rows]
        else:
            found = self._held_out(candidate, rows)
            said = [likeliest(found[row.id]) if row.id in found else (None, 0.0) for row in rows]
        predictions = [label for label, _ in said]
        right = [is_right(label, gold, labels) for label, gold in zip(predictions, golds, strict=True)]
        if candidate.mode == "generate":
            losses = [float(not one) for one in right]
        else:
            blind = dict.fromkeys(labels, 1 / len(labels))
            losses = least_losses([found.get(row.id, blind) for row in rows], golds)
        macro = macro_f1(golds, predictions, labels) if labels else None
        return Judged(
            candidate, predictions, [share for _, share in said], right, losses, macro,
            self._cost(candidate.setup, rows),
        )  # fmt: skip

    def _cost(self, setup: Observer, rows: Sequence[Example]) -> float:
        tokens = [self.survey.of(setup, row).prompt_tokens for row in self._fitting(setup, rows)]
        return sum(tokens) / len(tokens)

    def _held_out(self, candidate: Candidate, rows: Sequence[Example]) -> dict[str, dict[str, float]]:
        """Return by row id the shares from a fit that had not seen the row, where there are such and an answer."""
        setup, fitting = candidate.setup, self._fitting(candidate.setup, rows)
        answers = [row.answer for row in fitting]
        found: dict[str, dict[str, float]] = {}
        if candidate.mode != "score":
            apart = [self._linear(setup, group, fitting) for group in setup.groups(candidate.mode)]
            return {row.id: pooled(shares) for row, *shares in zip(fitting, *apart, strict=True)}
        for train, held in folds(answers):
            reader = self.fit(candidate, [fitting[at] for at in train])
            for row in (fitting[at] for at in held if self._answers(candidate, fitting[at])):
                found[row.id] = reader.shares(self.survey.of(setup, row))
        return found

    def _linear(self, setup: Observer, group: tuple[Block, ...], rows: Sequence[Example]) -> list[dict[str, float]]:
        """Return the held-out shares of a linear model of one group; `hidden` and `blend` have one in common."""
        prompt = 0 if group == ("vector",) else id(setup)  # the question's embedding is the same under every prompt
        key = (prompt, group, tuple(row.id for row in rows))
        if key not in self._known:
            seen, answers = [self.survey.of(setup, row) for row in rows], [row.answer for row in rows]
            self._known[key] = held_out_linear(seen, answers, group, self.task.labels)
        return self._known[key]

    def _answers(self, candidate: Candidate, row: Example) -> bool:
        """Say whether a solver would answer: the row fits and, where scores alone are read, some label is in sight."""
        if not self.survey.fits(candidate.setup, row):
            return False
        scores = self.survey.of(candidate.setup, row).scores
        return candidate.mode != "score" or bool(scores and scores.measured)

    def fit(self, candidate: Candidate, rows: Sequence[Example]) -> Reader:
        """Fit a candidate's reader on rows; those that do not fit the context are left out."""
        rows, labels = self._fitting(candidate.setup, rows), self.task.labels
        seen, answers = [self.survey.of(candidate.setup, row) for row in rows], [row.answer for row in rows]
        if needs_labelled_rows(candidate.mode, candidate.prior):
            return fit_reader(candidate.mode, seen, answers, candidate.setup.groups(candidate.mode), labels)
        texts = set(prior_texts(rows, self.task, seed=self.seed))
        read = [one for one, row in zip(seen, rows, strict=True) if row.text in texts]
        return PriorReader(mean_shares(one.scores.probabilities for one in read if one.scores))

    def right(self, candidate: Candidate, fitted_on: Sequence[Example], rows: Sequence[Example]) -> list[bool]:
        """Say for each row whether a candidate that was fitted on others answers it rightly."""
        setup, survey = candidate.setup, self.survey
        if candidate.mode == "generate":
            said = [survey.said(setup, row) for row in rows]
        else:
            reader = self.fit(candidate, fitted_on)
            said = [
                likeliest(reader.shares(survey.of(setup, row)))[0] if self._answers(candidate, row) else None
                for row in rows
            ]
        return [is_right(label, row.answer, self.task.labels) for label, row in zip(said, rows, strict=True)]

    def _fitting(self, setup: Observer, rows: Sequence[Example]) -> list[Example]:
        return [row for row in rows if self.survey.fits(setup, row)]


def least_losses(shares: Sequence[Mapping[str, float]], answers: Sequence[str]) -> list[float]:
    """Return the cross-entropy of each row's answer, at the one temperature that makes their sum least.

    All labels weigh alike.

    Candidates are compared by it, since on 60 rows it tells them apart with far less noise than accuracy or F1. The
    temperature makes those comparable that are right in the same places and only bolder.
    """
    # A share of 0 would cost infinitely much; one in a million is the least that counts.
    weights, labels = balance(answers), list(shares[0])
    logs = np.log([[max(one[label], 1e-6) for label in labels] for one in shares])
    gold = [labels.index(answer) for answer in answers]

    def losses(temperature: float) -> list[float]:
        # log softmax(log share / temperature): above 1 it makes shares more even, below 1 bolder (Guo et al. 2017,
        # arXiv 1706.04599, section 4.2). The exponents are between -56 and 0, so nothing overflows.
        tempered = logs / temperature
        tempered -= np.log(np.exp(tempered).sum(axis=1, keepdims=True))
        return list(map(float, -weights * tempered[np.arange(len(gold)), gold]))

    return min(map(losses, _TEMPERATURES), key=sum)
