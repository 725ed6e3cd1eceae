"""Cross-fitting: every row answered by a reader that was fitted on the others, its temperature too."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sleicl_chains.answering.calibration import best_temperature, tempered
from sleicl_chains.answering.evidence import Observation, label_shares
from sleicl_chains.answering.fitting import fit_linear_held_out
from sleicl_chains.answering.priors import mean_shares, prior_texts
from sleicl_chains.answering.readers import BlendReader, LinearReader, PriorReader, Reader
from sleicl_chains.answering.readings import Block, Mode, Prior
from sleicl_chains.answering.shares import likeliest, pooled
from sleicl_chains.models.abilities import StateReader, scoring_problem
from sleicl_chains.tasks.cards import Task
from sleicl_chains.tasks.rows import Example, text_id
from sleicl_chains.tasks.splits import FOLDS

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

BLEND_ROWS = 30
"""Rows to fit on from which on that is worth it: of fifty labelled ones at least so many stay."""
Groups = Sequence[tuple[Block, ...]]
"""The evidence that a reader is made of, a group for each linear model; none where a prior alone is removed."""


def plain_reading(weak: "BaseChatModel", task: Task, rows: int) -> tuple[Mode, Prior]:
    """Return how the answers of a model are read, by what it gives and by the number of rows to fit on alone."""
    if not task.labels or scoring_problem(weak):
        return "generate", "none"
    return ("blend", "none") if rows >= BLEND_ROWS and isinstance(weak, StateReader) else ("score", "mean")


class Held(NamedTuple):
    """What was made of one row without having seen its answer."""

    label: str | None
    """None where there was no answer, which counts as wrong."""
    share: float = 0.0
    """What the label had, as the reader gives it."""
    chance: float | None = None
    """The same at the temperature; None where answers are generated."""
    score: float | None = None
    """The quadratic score of the probabilities, see `quadratic_score`; None where answers are generated."""


_UNANSWERED = Held(None, 0.0, 0.0, 0.0)
"""Of a row that did not fit, or of which no label was in sight."""


@dataclass(frozen=True)
class CrossFit:
    """Fits readers on labelled rows, crosswise; the rows and the folds are the same for every prompt."""

    task: Task
    rows: Sequence[Example]
    seed: int = 0
    """Decides which texts the prior reads."""
    _vectors: dict[tuple[str, ...], tuple[LinearReader, list[dict[str, float]]]] = field(default_factory=dict)
    """Fits on the question's embedding alone, which is the same under every prompt."""

    def held_out(self, seen: Sequence[Observation | None], groups: Groups) -> list[Held]:
        """Return what is made of each row by a reader and a temperature of the other folds. No model calls.

        Args:
            seen: the evidence of each row; None where the row did not fit the context.
            groups: what the reader looks at; without any the prior is taken off the scores.
        """
        found = [_UNANSWERED for _ in self.rows]
        for held in folds(self.rows):
            out = set(held)
            train = [(one, row) for at, (one, row) in enumerate(zip(seen, self.rows, strict=True)) if at not in out]
            fitted = self.fit([(one, row) for one, row in train if one], groups)
            for at in held:
                found[at] = _read(*fitted, seen[at], self.rows[at].answer, scored=not groups)
        return found

    def fit(self, rows: Sequence[tuple[Observation, Example]], groups: Groups) -> tuple[Reader, float]:
        """Return a reader, and the temperature at which its shares are most to be trusted on rows it was not made of.

        The temperature comes from cross-validation within the rows, which also chose the reader's penalties. A prior
        is a mean over some of the texts and knows no answer but that labels are balanced, so there the rows serve both.
        """
        seen, answers = [one for one, _ in rows], [row.answer for _, row in rows]
        if groups:
            parts = [self._linear(rows, group) for group in groups]
            readers = tuple(reader for reader, _ in parts)
            reader: Reader = readers[0] if len(readers) == 1 else BlendReader(readers)
            shares = [pooled(each) for each in zip(*(inner for _, inner in parts), strict=True)]
        else:
            texts = set(prior_texts([row for _, row in rows], self.task, seed=self.seed))
            reader = PriorReader(mean_shares(label_shares(one) for one, row in rows if row.text in texts))
            shares = [reader.shares(one) for one in seen]
        labels = list(shares[0])
        table = np.array([list(one.values()) for one in shares])
        return reader, best_temperature(table, np.array([labels.index(answer) for answer in answers]))

    def _linear(
        self, rows: Sequence[tuple[Observation, Example]], group: tuple[Block, ...]
    ) -> tuple[LinearReader, list[dict[str, float]]]:
        """Fit one group of evidence; the question's embedding once for all prompts."""
        key = tuple(row.id for _, row in rows)
        if group == ("vector",) and key in self._vectors:
            return self._vectors[key]
        found = fit_linear_held_out([one for one, _ in rows], [row.answer for _, row in rows], group, self.task.labels)
        if group == ("vector",):
            self._vectors[key] = found
        return found


def _read(reader: Reader, temperature: float, seen: Observation | None, answer: str, *, scored: bool) -> Held:
    if seen is None or scored and not (seen.scores and seen.scores.measured):
        return _UNANSWERED
    shares = reader.shares(seen)
    calm = dict(zip(shares, map(float, tempered(np.array([list(shares.values())]), temperature)[0]), strict=True))
    label, share = likeliest(shares)
    return Held(label, share, calm[label], quadratic_score(calm, answer))


def quadratic_score(shares: Mapping[str, float], answer: str) -> float:
    """Return 2 p(answer) - the sum of all p^2, from -1 to 1 (Brier 1950, turned round).

    It is at its best where the probabilities are the true ones, so one that is a little too bold or too timid for all
    rows alike hardly changes it. The probability of the right label itself rewards boldness: compared by it, two equal
    prompts whose readers happened to be fitted a little differently were told apart 3 times in 10 (benchmarks/LOG.md).
    """
    return 2 * shares[answer] - sum(share * share for share in shares.values())


def folds(rows: Sequence[Example]) -> list[list[int]]:
    """Return the row numbers of each fold: of each label the same share, dealt out by the hash of the folded text.

    So a row is held out with the same others wherever it stands in the file.
    """
    ranked = sorted(range(len(rows)), key=lambda at: (rows[at].answer, text_id(rows[at].text)))
    return [sorted(ranked[start::FOLDS]) for start in range(FOLDS)]
