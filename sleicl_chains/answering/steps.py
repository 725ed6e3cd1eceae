"""The steps from a question to an `Answer`: the prompt, the evidence or the reply, and what is read in it."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.runnables.config import run_in_executor

from sleicl_chains.answering.cues import CUE, NO_CUE, Cue
from sleicl_chains.answering.observer import Observer
from sleicl_chains.answering.readers import Calibration, Reader, likeliest
from sleicl_chains.answering.readings import GROUPS, Mode, Prior
from sleicl_chains.answering.schemas import held_to_labels, label_of
from sleicl_chains.answers import Answer
from sleicl_chains.errors import InputError
from sleicl_chains.models.journal import aask, ask
from sleicl_chains.models.thinking import without_thinking
from sleicl_chains.tasks.cards import Task
from sleicl_chains.tasks.labels import parse_label
from sleicl_chains.tasks.texts import whole_text

_NONE_IN_SIGHT = "no label was among the tokens that the server shows; embedded:ollama/NAME scores them all"


@dataclass(frozen=True)
class Solver:
    """A prompt and a fitted reader: a question in, an `Answer` out."""

    observer: Observer
    mode: Mode
    prior: Prior = "none"
    """What the reader takes off the scores."""
    reader: Reader | None = None
    """Makes an answer of the evidence; None where the model's own words are read."""
    calibration: Calibration | None = None
    note: str = ""
    """Goes with every answer: why the mode is not the one that the task would have."""
    name: str = ""
    """The name in a table, where it is not the arm's."""

    @property
    def task(self) -> Task:
        """What is asked."""
        return self.observer.task

    @property
    def cue(self) -> Cue:
        """How the answer is asked for; a chat whose reply is parsed needs no cue."""
        if self.mode in GROUPS:
            return self.observer.cue
        return CUE if self.mode == "generate" and not self.observer.chats else NO_CUE

    def messages(self, question: str) -> list[BaseMessage]:
        """Return the prompt of one question."""
        return self.observer.messages(question, self.cue)

    def answer(self, question: str) -> Answer:
        """Answer one question."""
        if self.mode in GROUPS:
            return self._observed(_text(question))
        return self._read(ask(self._speaker, self.messages(_text(question)), self.observer.journal))

    async def aanswer(self, question: str) -> Answer:
        """Do the same without blocking."""
        if self.mode in GROUPS:  # in a thread: the engine blocks, and Ollama answers one at a time as well
            return await run_in_executor(None, self._observed, _text(question))
        messages = await run_in_executor(None, self.messages, _text(question))  # a model may be asked what it is
        return self._read(await aask(self._speaker, messages, self.observer.journal))

    @cached_property
    def _speaker(self) -> Any:
        """The model as it is asked for words."""
        weak = self.observer.weak
        return held_to_labels(weak, self.task.labels) if self.mode == "schema" else weak

    def _read(self, reply: AIMessage) -> Answer:
        """Take the answer out of the model's own words."""
        text = reply.text.strip() if self.task.labels else without_thinking(reply.text)
        read = label_of if self.mode == "schema" else parse_label
        label = read(text, self.task.labels) if self.task.labels else None
        cut = reply.response_metadata.get("finish_reason") == "length"
        used = reply.usage_metadata
        usage = {"prompt_tokens": used["input_tokens"], "reply_tokens": used["output_tokens"]} if used else {}
        return Answer(
            label=label,
            text=text,
            valid=label is not None if self.task.labels else bool(text),
            usage=usage,
            seconds=reply.response_metadata.get("seconds", 0.0),
            note="the reply was cut at its length limit" if cut and not self.task.labels else self.note,
            **self._about,
        )

    def _observed(self, question: str) -> Answer:
        """Gather the evidence and have the reader weigh it."""
        assert self.reader is not None
        seen = self.observer.observe(question, self.observer.blocks(self.mode))
        found: dict[str, Any] = {
            "cue": self.cue.text,
            "lists_labels": self.cue.lists_labels,
            "usage": {"prompt_tokens": seen.prompt_tokens, "reply_tokens": 0},
            "seconds": seen.seconds,
            **self._about,
        }
        if seen.scores:
            found |= {"coverage": seen.scores.coverage, "unseen": seen.scores.unseen}
            if self.mode == "score" and not seen.scores.measured:
                return Answer(label=None, text="", valid=False, note=_NONE_IN_SIGHT, **found)
        shares = self.reader.shares(seen)
        label, share = likeliest(shares)
        chance = self.calibration.of(share) if self.calibration else share
        return Answer(label=label, text=label, valid=True, probability=chance, scores=shares, **found)

    @cached_property
    def _about(self) -> dict[str, Any]:
        shown = self.observer
        id = shown.grimoire.id if shown.grimoire and shown.arm.form else None
        return {"arm": self.name or shown.arm.name, "mode": self.mode, "prior": self.prior, "grimoire": id}


def _text(question: str) -> str:
    if not isinstance(question, str) or not question.strip():
        found = "an empty one" if isinstance(question, str) else repr(question)
        raise InputError(f"A solver takes a question as text; found {found}")
    return whole_text(question, "the question")
