"""An observer: one weak model with one kind of prompt (task, grimoire, examples).

It writes the prompt of each question and measures how the model takes it: the label probabilities, the model's own
state, the question's embedding. It does not decide on an answer; readers do. What is measured is kept in the journal.
"""

import base64
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import BaseMessage

from sleicl_chains.answering.arms import Arm
from sleicl_chains.answering.cues import CUE, Cue, choose_cue
from sleicl_chains.answering.evidence import Observation
from sleicl_chains.answering.neighbours import Neighbours
from sleicl_chains.answering.prompt import Prompt
from sleicl_chains.answering.readings import EVIDENCE, GROUPS, Block, Mode, looks_at
from sleicl_chains.grimoires.grimoire import Grimoire
from sleicl_chains.models.abilities import (
    LabelScorer,
    LabelScores,
    Renderer,
    State,
    StateReader,
    knows_chats,
    name_of,
    prefix_rule,
    scoring_problem,
    shows_few_tokens,
)
from sleicl_chains.models.asking import as_child_run
from sleicl_chains.models.identity import former_identity, identity
from sleicl_chains.models.journal import Journal
from sleicl_chains.prompts import Templates
from sleicl_chains.tasks.cards import Task
from sleicl_chains.tasks.labels import prefixed
from sleicl_chains.tasks.rows import Example

if TYPE_CHECKING:
    from langchain_core.embeddings import Embeddings


@dataclass(frozen=True)
class Observer:
    """One weak model, and all that it is shown beside the question."""

    weak: BaseChatModel
    task: Task
    arm: Arm
    grimoire: Grimoire | None = None
    examples: tuple[Example, ...] = ()
    neighbours: Neighbours | None = None
    """For `knn`: chooses the examples of each question."""
    cue_texts: tuple[str, ...] = ()
    """Training texts that cues are tried on where a model shows its likeliest tokens alone."""
    given_cue: Cue | None = None
    embeddings: "Embeddings | None" = None
    journal: Journal | None = None
    templates: Templates = field(default_factory=Templates, repr=False, compare=False)
    """The prompt files as they were at the first prompt: an edited one is for the next observer."""

    @property
    def name(self) -> str:
        """The arm, with the id of the grimoire that it shows."""
        return self.arm.name + (f" ({self.grimoire.id})" if self.grimoire and self.arm.form else "")

    def messages(self, question: str, cue: Cue) -> list[BaseMessage]:
        """Return the chat of one question."""
        shown = self.neighbours(question) if self.neighbours else self.examples
        prompt = Prompt(self.task, self.arm, self.grimoire, shown, not self.chats, self.templates)
        return prompt.messages(question, cue)

    def prompt(self, question: str) -> str:
        """Return the exact text that the weak model is given when labels or its state are read."""
        return self._render(question, self.cue)

    def _render(self, question: str, cue: Cue) -> str:
        assert isinstance(self.weak, Renderer)
        return self.weak.render(self.messages(question, cue))

    @cached_property
    def cue(self) -> Cue:
        """How labels are asked for."""
        if self.given_cue:
            return self.given_cue
        if not self.few_alternatives:
            return CUE
        return choose_cue(lambda cue, text: self._scores(text, self._render(text, cue), cue)[0], self.cue_texts)

    @cached_property
    def chats(self) -> bool:
        """Whether the model was trained on chats; a base model is given a text to continue."""
        return knows_chats(self.weak)

    @property
    def few_alternatives(self) -> bool:
        """Whether the model shows its likeliest tokens alone, so that labels may be out of sight."""
        return shows_few_tokens(self.weak)

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What tells the model from others."""
        return identity(self.weak)

    @cached_property
    def evidence(self) -> tuple[Block, ...]:
        """All kinds of evidence that this model gives."""
        return tuple(block for block in EVIDENCE if block != "state" or isinstance(self.weak, StateReader))

    def groups(self, mode: Mode) -> list[tuple[Block, ...]]:
        """Return what each model of a mode reads; all do without the state of a weak model that does not give it."""
        given = [tuple(block for block in group if block in self.evidence) for group in GROUPS[mode]]
        return [group for group in given if group]

    def blocks(self, mode: Mode) -> tuple[Block, ...]:
        """Return all evidence that a mode reads."""
        return tuple(block for group in self.groups(mode) for block in group)

    def observe(self, question: str, blocks: Sequence[Block]) -> Observation:
        """Return the evidence for one question; costs a request for scores, two for the state, none for the vector."""
        found = Observation(vector=self._vector(question) if "vector" in blocks else ())
        prompt = self.prompt(question) if {"state", "scores"} & set(blocks) else ""
        if "state" in blocks:
            kept = self._state(question, prompt)
            state = [value for part in kept["state"] for value in _unpacked(part)]
            found = replace(found, state=state, prompt_tokens=kept["prompt_tokens"], seconds=kept["seconds"])
        if "scores" in blocks:
            scores, seconds = self._scores(question, prompt, self.cue)
            read = found.prompt_tokens + scores.prompt_tokens
            found = replace(found, scores=scores, prompt_tokens=read, seconds=found.seconds + seconds)
        return found

    def _scores(self, question: str, prompt: str, cue: Cue) -> tuple[LabelScores, float]:
        def ask() -> dict[str, Any]:
            weak = self.weak
            assert isinstance(weak, LabelScorer)
            found = as_child_run(
                self.weak, self.messages(question, cue), lambda: weak.score_labels(prompt, self.task.labels),
                prompt_tokens=lambda scores: scores.prompt_tokens, op="score_labels", labels=list(self.task.labels),
            )  # fmt: skip
            return {"scores": asdict(found)}

        # The op gets another name when scoring changes; old entries then answer no more.
        rule = prefix_rule(self.weak) if prefixed(self.task.labels) else ""
        request = {"op": "score_labels", "prompt": prompt, "labels": self.task.labels}
        kept = self._kept(request | ({"prefixed": rule} if rule else {}), ask)
        return LabelScores(**kept["scores"]), kept["seconds"]

    def _state(self, question: str, prompt: str) -> dict[str, Any]:
        """Read the state where the question ends and at the cue: the first tells what it is about, the second more.

        In this order each evaluation goes on from the one before.
        """
        place = len(prompt[: -self._after_question].rstrip())

        def ask() -> dict[str, Any]:
            weak = self.weak
            assert isinstance(weak, StateReader)
            states: list[State] = as_child_run(
                self.weak, self.messages(question, self.cue),
                lambda: [weak.read_state(prompt[:end]) for end in (place, len(prompt))],
                prompt_tokens=_tokens_of, op="read_state",
            )  # fmt: skip
            return {"state": [_packed(one.values) for one in states], "prompt_tokens": _tokens_of(states)}

        return self._kept({"op": "read_state", "prompt": prompt, "place": place}, ask)

    @cached_property
    def _after_question(self) -> int:
        """Characters that follow the question in a rendered prompt: what two prompts have in common at their end."""
        bare = replace(self, examples=(), neighbours=None)
        return len(os.path.commonprefix([bare._render(digit, self.cue)[::-1] for digit in "01"]))

    def _vector(self, question: str) -> list[float]:
        from sleicl_chains.models.embedders import embed

        assert self.embeddings is not None
        return [float(value) for value in embed(self.embeddings, [question])[0]]

    def _kept(self, request: Mapping[str, Any], ask: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Return what the journal keeps of a request, else ask and keep it."""

        def timed() -> dict[str, Any]:
            started = time.perf_counter()
            found = ask()
            return {**found, "seconds": time.perf_counter() - started}

        if self.journal is None:
            return timed()
        whole = {**request, "model": self.identity}
        return self.journal.once(whole, timed, former=lambda: {**request, "model": former_identity(self.weak)})


def _tokens_of(states: Sequence[State]) -> int:
    return sum(state.prompt_tokens for state in states)


def mode_problem(weak: BaseChatModel, mode: Mode) -> str:
    """Return why a model does not have an answer mode; empty if it does. An Ollama server is asked once."""
    if mode == "hidden" and not isinstance(weak, StateReader):
        return f"{name_of(weak)} does not give its state, which mode 'hidden' reads (embedded:ollama/NAME does)"
    return scoring_problem(weak) if looks_at(mode, "scores") else ""


def _packed(values: Sequence[float]) -> str:
    """Write numbers as 16-bit floats in base64: a state is 1 kB instead of 10, and rounding is far below its noise."""
    import numpy as np

    return base64.b64encode(np.asarray(values, dtype="<f2").tobytes()).decode()


def _unpacked(text: str) -> list[float]:
    import numpy as np

    return [float(value) for value in np.frombuffer(base64.b64decode(text), dtype="<f2")]
