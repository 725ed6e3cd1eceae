"""The survey: labelled rows put to the weak model under several prompts, each once, and what came of it."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from sleicl_chains.answering.cues import CUE
from sleicl_chains.answering.evidence import Observation
from sleicl_chains.answering.observer import Observer
from sleicl_chains.answering.readings import Block, Mode
from sleicl_chains.answering.steps import Solver
from sleicl_chains.errors import PromptTooLong, RejectedReply
from sleicl_chains.evaluation.progress import Progress
from sleicl_chains.tasks.labels import fold
from sleicl_chains.tasks.rows import Example


@dataclass
class Survey:
    """Keeps the evidence for each row under each prompt, and which rows do not fit the context."""

    blocks: tuple[Block, ...]
    """The evidence that is gathered, where answers are not generated."""
    progress: Progress
    planned: int
    """Questions if no prompt is dropped."""
    _seen: dict[tuple[int, str], Observation] = field(default_factory=dict)
    _said: dict[tuple[int, str], str | None] = field(default_factory=dict)
    _too_long: dict[tuple[int, str], str] = field(default_factory=dict)
    """Rows that do not fit the context, with the complaint; they count as wrong."""
    _done: int = 0

    def of(self, setup: Observer, row: Example) -> Observation:
        """Return what was seen of a row that was asked and fits."""
        return self._seen[id(setup), row.id]

    def said(self, setup: Observer, row: Example) -> str | None:
        """Return the answer that was generated; None where it could not be read, or the row does not fit."""
        return self._said.get((id(setup), row.id))

    def fits(self, setup: Observer, row: Example) -> bool:
        """Say whether a row that was asked fits the context under a prompt."""
        return (id(setup), row.id) not in self._too_long

    def complaint(self, setup: Observer, row: Example) -> str:
        """Return why a row does not fit."""
        return self._too_long[id(setup), row.id]

    def ask(self, setup: Observer, rows: Sequence[Example], mode: Mode) -> None:
        """Ask the weak model about rows under one prompt, one by one; a row that was asked before is left out."""
        chain = Solver(setup, "generate") if mode == "generate" else None
        for row in in_order(setup, rows):
            if (id(setup), row.id) in self._seen or not self.fits(setup, row):
                continue
            try:
                if chain:
                    self._generate(chain, setup, row)
                else:
                    self._seen[id(setup), row.id] = setup.observe(row.text, self.blocks)
            except PromptTooLong as problem:
                self._too_long[id(setup), row.id] = str(problem)
            self._done += 1
            self.progress(setup.name, self._done, max(self._done, self.planned))

    def _generate(self, chain: Solver, setup: Observer, row: Example) -> None:
        try:
            answer = chain.answer(row.text)
        except RejectedReply:
            self._said[id(setup), row.id], used, seconds = None, 0, 0.0
        else:
            self._said[id(setup), row.id] = answer.answer
            used, seconds = answer.usage.get("prompt_tokens", 0), answer.seconds
        self._seen[id(setup), row.id] = Observation(prompt_tokens=used, seconds=seconds)


def in_order(setup: Observer, rows: Sequence[Example]) -> list[Example]:
    """Return rows in the order in which an engine that keeps its last prompt has least to read.

    A row that is an example itself is asked without itself, and from its place on the prompt is another one. So
    these come last, from the last example back to the first.
    """
    place = {fold(example.text): at for at, example in enumerate(setup.examples)}
    return sorted(rows, key=lambda row: -place.get(fold(row.text), len(place)))


def fresh_characters(setup: Observer, rows: Sequence[Example]) -> int:
    """Return how many characters of prompts an engine reads if it keeps what a prompt shares with the one before."""
    texts = ["\n".join(turn.text for turn in setup.messages(row.text, CUE)) for row in in_order(setup, rows)]
    return sum(len(after) - len(os.path.commonprefix([before, after])) for before, after in pairwise(["", *texts]))
