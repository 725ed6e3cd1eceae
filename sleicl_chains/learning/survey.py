"""The survey: labelled rows put to the weak model under several prompts, each once, and what came of it."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median

from sleicl_chains.answering.arms import ArmName
from sleicl_chains.answering.cues import CUE
from sleicl_chains.answering.evidence import Observation
from sleicl_chains.answering.observer import Observer
from sleicl_chains.answering.readings import Mode
from sleicl_chains.answering.steps import Solver
from sleicl_chains.errors import PromptTooLong, RejectedReply
from sleicl_chains.learning.crossfit import CrossFit, Groups, Held
from sleicl_chains.tasks.rows import Example

PILOT = 4
"""Questions by which the time is foretold."""


@dataclass
class Asked:
    """One prompt, the rows that it is asked about, and what the weak model made of them."""

    observer: Observer
    mode: Mode
    rows: Sequence[Example]
    note: Callable[[str], None] = lambda _: None
    """Called with the prompt's name after each question."""
    seen: dict[str, Observation] = field(default_factory=dict)
    """By row id; without the rows that do not fit the context."""
    said: dict[str, str | None] = field(default_factory=dict)
    """Where answers are generated: the answer, None where it could not be read."""
    complaints: dict[str, str] = field(default_factory=dict)
    """By row id: what the model said of a row that does not fit its context; such rows count as wrong."""
    _held: dict[int, list[Held]] = field(default_factory=dict)
    """By the number of rows that it was made on."""

    @property
    def arm(self) -> ArmName:
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
        return len(self.complaints)

    @property
    def fits(self) -> bool:
        """Whether most rows fit the context."""
        return 2 * self.too_long < len(self.rows)

    def ask(self, count: int | None = None) -> None:
        """Ask the weak model about the rows, or the first of them; none twice. The journal keeps every call."""
        chain = Solver(self.observer, "generate") if self.mode == "generate" else None
        for row in self.rows[:count]:
            if row.id in self.seen or row.id in self.complaints:
                continue
            try:
                if chain:
                    self.seen[row.id], self.said[row.id] = _generated(chain, row)
                else:
                    self.seen[row.id] = self.observer.observe(row.text, self.observer.blocks(self.mode))
            except PromptTooLong as problem:
                self.complaints[row.id] = str(problem)
            self.note(self.observer.name)

    @property
    def groups(self) -> Groups:
        """What a fitted reader looks at; nothing where the prior alone is removed."""
        return () if self.mode == "score" else self.observer.groups(self.mode)

    def held_out(self, crossfit: CrossFit) -> list[Held]:
        """Return what is made of each row of a crossfit by readers of the others; kept."""
        if self.mode == "generate":
            return [Held(self.said.get(row.id), 1.0) for row in crossfit.rows]
        if (n := len(crossfit.rows)) not in self._held:
            self._held[n] = crossfit.held_out([self.seen.get(row.id) for row in crossfit.rows], self.groups)
        return self._held[n]


def _generated(chain: Solver, row: Example) -> tuple[Observation, str | None]:
    try:
        answer = chain.answer(row.text)
    except RejectedReply:
        return Observation(), None
    return Observation(prompt_tokens=answer.usage.get("prompt_tokens", 0), seconds=answer.seconds), answer.answer


def foretold_seconds(prompts: Sequence[Asked]) -> float:
    """Return the seconds that all questions take, at a price for each and for each character that is read anew.

    Both are told from a few questions under the shortest prompt, which read little, and one under the longest, which
    reads all of it. What the journal keeps counts as it was timed then.
    """
    ranked = sorted(prompts, key=lambda one: len(_text(one, one.rows[0])))
    each, _ = _pace(ranked[0], PILOT)
    whole, characters = _pace(ranked[-1], 1)
    little = fresh_characters(ranked[0]) / len(ranked[0].rows)
    a_character = max(0.0, whole - each) / max(1.0, characters - little)
    a_question = max(0.0, each - a_character * little)
    return sum(len(one.rows) * a_question + a_character * fresh_characters(one) for one in prompts)


def _pace(asked: Asked, count: int) -> tuple[float, int]:
    """Ask about some rows; return the median of the seconds, and the characters of a whole prompt."""
    asked.ask(count)
    seconds = [asked.seen[row.id].seconds for row in asked.rows[:count] if row.id in asked.seen]
    return median(seconds or [0.0]), max(1, len(_text(asked, asked.rows[0])))


def _text(asked: Asked, row: Example) -> str:
    return "\n".join(turn.text for turn in asked.observer.messages(row.text, CUE))


def fresh_characters(asked: Asked) -> int:
    """Return how many characters of prompts an engine reads if it keeps what a prompt shares with the one before."""
    texts = [_text(asked, row) for row in asked.rows]
    return sum(len(after) - len(os.path.commonprefix([before, after])) for before, after in pairwise(["", *texts]))
