"""The survey: labelled rows put to the weak model under several prompts, each once, and what came of it."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median

from sleicl_chains.answering.cues import CUE
from sleicl_chains.answering.evidence import Observation
from sleicl_chains.answering.observer import Observer
from sleicl_chains.answering.readings import Mode
from sleicl_chains.answering.steps import Solver
from sleicl_chains.errors import PromptTooLong, RejectedReply
from sleicl_chains.evaluation.progress import Progress
from sleicl_chains.learning.crossfit import CrossFit, Groups, Held
from sleicl_chains.tasks.rows import Example

PILOT = 4
"""Questions by which the time is foretold."""


@dataclass
class Asked:
    """One prompt, the rows that it is asked about, and what the weak model made of them."""

    observer: Observer
    rows: Sequence[Example]
    seen: dict[str, Observation] = field(default_factory=dict)
    """By row id; without the rows that do not fit the context."""
    said: dict[str, str | None] = field(default_factory=dict)
    """Where answers are generated: the answer, None where it could not be read."""
    complaint: str = ""
    """Of the model, about the last row that does not fit its context; such rows count as wrong."""

    @property
    def arm(self) -> str:
        """The name of what is shown."""
        return self.observer.arm.name

    @property
    def grimoire(self) -> str:
        """The id of the grimoire that is shown; empty without one."""
        shown = self.observer.grimoire if self.observer.arm.form else None
        return shown.id if shown else ""

    @property
    def too_long(self) -> int:
        """How many rows do not fit the context."""
        return len(self.rows) - len(self.seen)

    @property
    def fits(self) -> bool:
        """Whether most rows fit the context."""
        return 2 * self.too_long <= len(self.rows)


@dataclass
class Survey:
    """Asks, and reads what came of it."""

    mode: Mode
    progress: Progress
    planned: int
    """Questions, over all prompts."""
    _done: int = 0

    def ask(self, asked: Asked, rows: Sequence[Example] | None = None) -> None:
        """Ask the weak model about the rows of a prompt, or some of them; none twice. The journal keeps every call."""
        chain = Solver(asked.observer, "generate") if self.mode == "generate" else None
        for row in asked.rows if rows is None else rows:
            if row.id in asked.seen:
                continue
            try:
                if chain:
                    asked.seen[row.id], asked.said[row.id] = _generated(chain, row)
                else:
                    asked.seen[row.id] = asked.observer.observe(row.text, asked.observer.blocks(self.mode))
            except PromptTooLong as problem:
                asked.complaint = str(problem)
            self._done += 1
            self.progress(asked.observer.name, self._done, max(self._done, self.planned))

    def groups(self, asked: Asked) -> Groups:
        """Return what a fitted reader looks at; nothing where the prior alone is removed."""
        return () if self.mode == "score" else asked.observer.groups(self.mode)

    def held_out(self, asked: Asked, crossfit: CrossFit) -> list[Held]:
        """Return what is made of each row of a crossfit by readers of the others."""
        if self.mode == "generate":
            return [Held(asked.said.get(row.id), 1.0) for row in crossfit.rows]
        return crossfit.held_out([asked.seen.get(row.id) for row in crossfit.rows], self.groups(asked))


def _generated(chain: Solver, row: Example) -> tuple[Observation, str | None]:
    try:
        answer = chain.answer(row.text)
    except RejectedReply:
        return Observation(), None
    return Observation(prompt_tokens=answer.usage.get("prompt_tokens", 0), seconds=answer.seconds), answer.answer


def foretold_seconds(survey: Survey, prompts: Sequence[Asked]) -> float:
    """Return the seconds that all questions take, at a price for each and for each character that is read anew.

    Both are told from a few questions under the shortest prompt, which read little, and one under the longest, which
    reads all of it. What the journal keeps counts as it was timed then.
    """
    ranked = sorted(prompts, key=lambda one: len(_text(one, one.rows[0])))
    each, _ = _pace(survey, ranked[0], PILOT)
    whole, characters = _pace(survey, ranked[-1], 1)
    little = fresh_characters(ranked[0]) / len(ranked[0].rows)
    a_character = max(0.0, whole - each) / max(1.0, characters - little)
    a_question = max(0.0, each - a_character * little)
    return sum(len(one.rows) * a_question + a_character * fresh_characters(one) for one in prompts)


def _pace(survey: Survey, asked: Asked, count: int) -> tuple[float, int]:
    """Ask about some rows; return the median of the seconds, and the characters of a whole prompt."""
    rows = asked.rows[:count]
    survey.ask(asked, rows)
    seconds = [asked.seen[row.id].seconds for row in rows if row.id in asked.seen]
    return median(seconds or [0.0]), max(1, len(_text(asked, rows[0])))


def _text(asked: Asked, row: Example) -> str:
    return "\n".join(turn.text for turn in asked.observer.messages(row.text, CUE))


def fresh_characters(asked: Asked) -> int:
    """Return how many characters of prompts an engine reads if it keeps what a prompt shares with the one before."""
    texts = [_text(asked, row) for row in asked.rows]
    return sum(len(after) - len(os.path.commonprefix([before, after])) for before, after in pairwise(["", *texts]))
