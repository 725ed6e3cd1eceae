"""The class `Solver`, which answers: it writes the prompt, asks the weak model, and reads an `Answer` in what comes.

An `observer.Observer` asks for probabilities and states, which a reader weighs; a reply in words is parsed here.
"""

from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.runnables.config import run_in_executor

from sleicl_chains.answering.calibration import Calibration
from sleicl_chains.answering.cues import CUE, NO_CUE, Cue
from sleicl_chains.answering.observer import Observer
from sleicl_chains.answering.readers import Reader
from sleicl_chains.answering.readings import GROUPS, Mode, Prior
from sleicl_chains.answering.schemas import held_to_labels, label_of, refusals_told
from sleicl_chains.answering.shares import likeliest
from sleicl_chains.answers import Answer
from sleicl_chains.errors import InputError, RejectedReply
from sleicl_chains.models.asking import aask, ask, astream, stream, used
from sleicl_chains.models.budget import as_journalled
from sleicl_chains.models.replies import check_label, check_said, check_whole, cut_by
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
    whole: bool = False
    """Whether an open-ended reply that was cut is refused, not given with a note."""

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
            return self._observed(checked_question(question))
        messages = self.messages(checked_question(question))
        with refusals_told():
            return self._read(ask(self._asked(messages), messages, self.observer.journal, check=self.check_answer))

    async def aanswer(self, question: str) -> Answer:
        """Do the same without blocking."""
        if self.mode in GROUPS:  # in a thread: the engine blocks, and Ollama answers one at a time as well
            return await run_in_executor(None, self._observed, checked_question(question))
        messages = await run_in_executor(
            None, self.messages, checked_question(question)
        )  # a model may be asked what it is
        speaker = await run_in_executor(None, self._asked, messages)
        with refusals_told():
            return self._read(await aask(speaker, messages, self.observer.journal, check=self.check_answer))

    @property
    def streams(self) -> bool:
        """Whether answers come piece by piece: text does, a label is one piece."""
        return not self.task.labels and self.mode == "generate"

    def stream(self, question: str) -> Iterator[Answer]:
        """Yield the text as it comes, and at last how it was come by; the sum of the pieces is the answer."""
        messages, shown = self.messages(checked_question(question)), _Shown()
        for reply in stream(self._asked(messages), messages, self.observer.journal, check=self.check_answer):
            if not isinstance(reply, AIMessageChunk):
                yield shown.rest(self._read(reply))
            elif piece := shown.more(reply.text):
                yield Answer(label=None, text=piece, valid=False, **self._about)

    async def astream(self, question: str) -> AsyncGenerator[Answer, None]:
        """Do the same without blocking."""
        messages = await run_in_executor(None, self.messages, checked_question(question))
        speaker, shown = await run_in_executor(None, self._asked, messages), _Shown()
        async with aclosing(astream(speaker, messages, self.observer.journal, check=self.check_answer)) as replies:
            async for reply in replies:
                if not isinstance(reply, AIMessageChunk):
                    yield shown.rest(self._read(reply))
                elif piece := shown.more(reply.text):
                    yield Answer(label=None, text=piece, valid=False, **self._about)

    def _asked(self, messages: Sequence[BaseMessage]) -> Any:
        """The model, and where whole replies alone count, one that finds those bought under another limit of length."""
        return as_journalled(self._speaker, messages, self.observer.journal, {}) if self.whole else self._speaker

    @cached_property
    def _speaker(self) -> Any:
        """The model as it is asked for words."""
        weak = self.observer.weak
        return held_to_labels(weak, self.task.labels) if self.mode == "schema" else weak

    def check_answer(self, reply: AIMessage) -> None:
        """Refuse a reply that must not be taken for an answer; it is asked for again the next time.

        A weak model's open-ended reply that was cut at its limit is an answer with a note: its beginning is of use, and
        the same limit would cut it again. A strong model's is refused (`whole`): half an answer must not take the
        place of a whole one of the weak model.

        Raises:
            RejectedReply: it is empty, was withheld, is thinking alone, or was cut before it named a label.
        """
        try:
            if self.task.labels:
                check_label(reply, self._label(reply), self.task.labels)
            else:
                (check_whole if self.whole else check_said)(reply)
        except RejectedReply as problem:
            problem.answer = replace(self._read(reply), label=None, valid=False)
            raise

    def _label(self, reply: AIMessage) -> str | None:
        read = label_of if self.mode == "schema" else parse_label
        return read(reply.text.strip(), self.task.labels)

    def _read(self, reply: AIMessage) -> Answer:
        """Take the answer out of the model's own words."""
        text = reply.text.strip() if self.task.labels else without_thinking(reply.text)
        label = self._label(reply) if self.task.labels else None
        cut = bool(cut_by(reply))
        return Answer(
            label=label,
            text=text,
            valid=label is not None if self.task.labels else bool(text),
            usage=used(reply),
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


class _Shown:
    """What was already passed on of a streamed reply; its thinking is never passed on."""

    def __init__(self) -> None:
        self._whole = self._shown = ""

    def more(self, text: str) -> str:
        """Return what can be shown now that this has come; the beginning of a tag waits for its end."""
        self._whole += text
        found = without_thinking(self._whole)
        ready = found[: found.rfind("<")] if "<" in found and ">" not in found[found.rfind("<") :] else found
        piece = ready[len(self._shown) :] if ready.startswith(self._shown) else ""
        self._shown += piece
        return piece

    def rest(self, answer: Answer) -> Answer:
        """Return the last piece."""
        if answer.text.startswith(self._shown):
            return replace(answer, text=answer.text[len(self._shown) :])
        # A template that opens the thinking itself is told only by the closing tag.
        return replace(answer, text=f"\n\n{answer.text}", note="what came before was thinking")


def checked_question(question: str) -> str:
    """Return a question that is one.

    Raises:
        InputError: it is empty, no text, or holds half a character.
    """
    if not isinstance(question, str) or not question.strip():
        found = "an empty one" if isinstance(question, str) else repr(question)
        raise InputError(f"A solver takes a question as text; found {found}")
    return whole_text(question, "the question")
