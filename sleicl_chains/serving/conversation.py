"""One conversation with a local model, for a terminal, a page, a server or a program.

For each message the fitting grimoire is found and put before the model; the talk stays within the model's context by
leaving out the oldest turns.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, Generator, Iterator, Sequence
from contextlib import aclosing, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage, SystemMessage
from pydantic import BaseModel, ConfigDict, ValidationError

from sleicl_chains.errors import InputError, PromptTooLong, SleiclError, first_complaint
from sleicl_chains.files import EXCHANGE_LIMIT, parse_json, read_text, write_whole
from sleicl_chains.grimoires.grimoire import Grimoire
from sleicl_chains.grimoires.store import GrimoireStore
from sleicl_chains.models.abilities import Renderer, context_of, reply_limit
from sleicl_chains.models.reading import reading_problem
from sleicl_chains.models.thinking import ThinkingStream, without_thinking
from sleicl_chains.models.tokens import estimate_tokens
from sleicl_chains.prompts import fill
from sleicl_chains.serving.picking import Pick, Picker
from sleicl_chains.tasks.texts import whole_text

Ended = Literal["open", "whole", "cut", "stopped", "failed"]
_PER_TURN = 8
"""Tokens that a template writes around a message, about."""
_CONTEXT = 4096
"""Where a model does not tell its context."""


class Piece(NamedTuple):
    """A part of a reply as it comes."""

    text: str
    thinking: bool = False


@dataclass
class Turn:
    """A message of the user's and the reply to it."""

    text: str
    pick: Pick
    reply: str = ""
    """Without thinking, once it has ended; what had come where it ended early."""
    ended: Ended = "open"
    """`cut` at the limit of its length, `stopped` by the user, `failed` by an error: then it is not shown again."""
    usage: dict[str, int] = field(default_factory=dict)
    """Tokens as the server counted them; empty where it did not."""

    @property
    def grimoire(self) -> Grimoire | None:
        """What stood before the model at this turn."""
        return self.pick.grimoire

    @property
    def why(self) -> str:
        """Why this grimoire, or none."""
        return self.pick.why


class Conversation:
    """A talk with a model, each message with the grimoire that fits it, if one does.

    Args:
        weak: the model.
        store: the library; without one there are no grimoires.
        system: the user's own system text, which stands above the grimoire.
        grimoire: `auto` picks one for each message, `none` shows none, and a grimoire is shown at every message.
        unreadable: why none is to be picked; by default what is known of the model, and "" picks in any case.

        label_temperature: of replies for which the grimoire names labels; None leaves it to the model.

    One call at a time: a talk is one thread's.
    """

    def __init__(
        self,
        weak: BaseChatModel,
        store: GrimoireStore | None = None,
        *,
        system: str = "",
        grimoire: Grimoire | Literal["auto", "none"] = "auto",
        unreadable: str | None = None,
        label_temperature: float | None = 0.0,
    ) -> None:
        self.weak = weak
        self.store = store
        self.system = system
        self.grimoire = grimoire
        self.turns: list[Turn] = []
        self.picker = Picker(store) if store else None
        self.sent: list[BaseMessage] = []
        """What the model was sent last."""
        self._label_temperature = label_temperature
        self._problem = unreadable

    @property
    def unreadable(self) -> str:
        """Why no grimoire is picked for this model: it is known not to follow one; empty where it may."""
        if self._problem is None:
            self._problem = reading_problem(self.weak, self.store.home if self.store else None)
        return self._problem

    def use(self, weak: BaseChatModel) -> None:
        """Go on with another model."""
        self.weak, self._problem = weak, None

    def pick(self, text: str) -> Pick:
        """Return the grimoire that a message would have now."""
        if isinstance(self.grimoire, Grimoire):
            return Pick(self.grimoire, "chosen by you")
        if self.grimoire == "none" or self.picker is None:
            return Pick(None, "no grimoires wanted")
        if self.unreadable:
            return Pick(None, self.unreadable)
        return self.picker.pick(text, next((turn.pick for turn in reversed(self.turns)), None))

    def messages(self, text: str, pick: Pick | None = None, *, reply: int | None = None) -> list[BaseMessage]:
        """Return what the model would be sent for a message: as many of the last turns as fit its context.

        Args:
            text: the message.
            pick: its grimoire, by default the one that it would have now.
            reply: tokens to keep free for the reply, by default the model's limit; more than half of the context is
                never kept free.
        """
        pick = pick or self.pick(text)
        first, last = _system(self.system, pick.grimoire), HumanMessage(text)
        turns = [turn for turn in self.turns if turn.ended in ("whole", "cut", "stopped") and turn.reply]
        context = context_of(self.weak) or _CONTEXT
        room = context - min(reply or reply_limit(self.weak), context // 2) - _size([*first, last])
        kept: list[BaseMessage] = []
        for turn in reversed(turns):
            pair = [HumanMessage(turn.text), AIMessage(turn.reply)]
            room -= _size(pair)
            if room < 0:
                break
            kept = [*pair, *kept]
        return [*first, *kept, last]

    def stream(self, text: str) -> Iterator[str]:
        """Yield the reply to a message as it comes, without thinking.

        The new turn stands in `turns` at once, with its grimoire. One model call. A reply that is left early is
        `stopped`, and what had come stays in the talk.

        Raises:
            InputError: the message is empty, or not valid Unicode.
            ModelError: the model does not answer; the turn is `failed`, and the talk goes on without it.
            StoreError: the library cannot be read.
        """
        return (piece.text for piece in self.pieces(text) if not piece.thinking)

    def pieces(self, text: str) -> Generator[Piece]:
        """Do the same as `stream`, and yield thinking too."""
        return self._answered(*self._begun(text))

    async def apieces(self, text: str, **options: Any) -> AsyncGenerator[Piece, None]:
        """Do the same without blocking; where it is cancelled, the model stops.

        Args:
            text: the message.
            options: of the model's call, such as `max_tokens`, `temperature` or `stop`.
        """
        turn, messages = await asyncio.to_thread(self._begun, text, options.get("max_tokens"))
        heard = _Heard(turn)
        with heard.told():
            async with aclosing(self._astreamed(messages, {**self._options(turn), **options})) as chunks:
                async for chunk in chunks:
                    for piece in heard.feed(chunk):
                        yield piece
            for piece in heard.end():
                yield piece

    def _begun(self, text: str, reply: int | None = None) -> tuple[Turn, list[BaseMessage]]:
        """Return a message's new turn, and what the model is sent for it."""
        if not whole_text(text, "the message").strip():
            raise InputError("the message is empty; say something")
        pick = self.pick(text)
        messages = self.messages(text, pick, reply=reply)
        turn = Turn(text, pick)
        self.turns.append(turn)
        return turn, messages

    def retry(self) -> Generator[Piece]:
        """Take the last turn back and answer its message again; where that fails, what was answered before stays."""
        if not self.turns:
            raise InputError("there is nothing to try again yet; say something first")
        last = self.turns.pop()
        try:
            return self._again(self.pieces(last.text), last)
        except SleiclError:  # a library that cannot be read takes no turn away
            self.turns.append(last)
            raise

    def _again(self, pieces: Generator[Piece], before: Turn) -> Generator[Piece]:
        try:
            yield from pieces
        except Exception:  # providers have errors of their own
            if before.reply:
                self.turns[-1] = before
            raise

    def _answered(self, turn: Turn, messages: list[BaseMessage]) -> Generator[Piece]:
        heard = _Heard(turn)
        with heard.told():
            with closing(self._streamed(messages, self._options(turn))) as chunks:
                for chunk in chunks:
                    yield from heard.feed(chunk)
            yield from heard.end()

    def _options(self, turn: Turn) -> dict[str, Any]:
        """Return the options of a turn's call: a label wants no dice."""
        if self._label_temperature is None or not (turn.grimoire and turn.grimoire.labels):
            return {}
        # Some models of providers know no temperature; our own take it at each call.
        return {"temperature": self._label_temperature} if isinstance(self.weak, Renderer) else {}

    def _streamed(self, messages: list[BaseMessage], options: dict[str, Any]) -> Generator[AIMessageChunk]:
        """Stream a reply; where the prompt is longer than estimated, leave out the oldest turn and ask again."""
        while True:
            begun = False
            self.sent = messages
            try:
                for chunk in self.weak.stream(messages, **options):
                    begun = True
                    yield chunk
                return
            except PromptTooLong:
                if begun or (shorter := _without_oldest(messages)) is None:
                    raise
                messages = shorter

    async def _astreamed(
        self, messages: list[BaseMessage], options: dict[str, Any]
    ) -> AsyncGenerator[AIMessageChunk, None]:
        while True:
            begun = False
            self.sent = messages
            try:
                async for chunk in self.weak.astream(messages, **options):
                    begun = True
                    yield chunk
                return
            except PromptTooLong:
                if begun or (shorter := _without_oldest(messages)) is None:
                    raise
                messages = shorter

    def clear(self) -> None:
        """Forget all turns."""
        self.turns.clear()

    @classmethod
    def of(
        cls, weak: BaseChatModel, store: GrimoireStore | None, messages: Sequence[BaseMessage], *,
        grimoire: Grimoire | Literal["auto", "none"] = "auto",
        unreadable: str | None = None,
    ) -> "Conversation":  # fmt: skip
        """Return the talk of messages that ended with a reply; system messages are the user's own text.

        Raises:
            InputError: they are no talk of user and model in turn.
        """
        system = "\n\n".join(one.text for one in messages if isinstance(one, SystemMessage))
        talk = cls(weak, store, system=system, grimoire=grimoire, unreadable=unreadable)
        asked: HumanMessage | None = None
        for message in messages:
            if isinstance(message, HumanMessage):
                asked = HumanMessage(f"{asked.text}\n\n{message.text}") if asked else message
            elif isinstance(message, AIMessage):
                if asked:  # else it is a greeting of the client's own
                    talk.turns.append(Turn(asked.text, talk.pick(asked.text), message.text, "whole"))
                asked = None
            elif not isinstance(message, SystemMessage):
                raise InputError(f"a conversation is of user and assistant in turn; found {message.type}")
        if asked:
            raise InputError("the last message of a conversation so far must be the assistant's")
        return talk

    def save(self, path: Path) -> None:
        """Write the talk to a file that only this user may read: messages, and the grimoires' ids."""
        turns = [
            {"text": one.text, "reply": one.reply, "ended": one.ended, "why": one.why,
             "grimoire": one.grimoire.id if one.grimoire else None}
            for one in self.turns
        ]  # fmt: skip
        told = {"sleicl": "conversation", "system": self.system, "turns": turns}
        write_whole(path, json.dumps(told, indent=1, ensure_ascii=False) + "\n", mode=0o600)

    def load(self, path: Path) -> None:
        """Take the talk of a file in place of this one; grimoires are found again by their ids.

        Raises:
            InputError: it is no file of `save`.
        """
        try:
            text = read_text(path, "a conversation", EXCHANGE_LIMIT)
            saved = _Saved.model_validate(parse_json(text, path, "one object"))
        except ValidationError as problem:
            raise InputError(f"{path}: {first_complaint(problem)}") from None
        self.system = saved.system
        self.turns = [
            Turn(one.text, Pick(self._found(one.grimoire), one.why), one.reply, one.ended) for one in saved.turns
        ]

    def _found(self, id: str | None) -> Grimoire | None:
        try:
            return self.store.get(id) if id and self.store else None
        except SleiclError:
            return None


class _Heard:
    """What is made of a reply as it comes."""

    def __init__(self, turn: Turn) -> None:
        self._turn = turn
        self._whole: AIMessageChunk | None = None
        self._thinking = ThinkingStream()

    @contextmanager
    def told(self) -> Iterator[None]:
        """Note in the turn how the reply ended."""
        try:
            yield
        except (GeneratorExit, KeyboardInterrupt, asyncio.CancelledError):
            self._turn.ended = "stopped"
            raise
        except BaseException:
            self._turn.ended = "failed"
            raise
        finally:
            self._turn.reply = without_thinking(self._whole.text) if self._whole else ""
        whole = self._whole
        self._turn.ended = "cut" if whole and whole.response_metadata.get("finish_reason") == "length" else "whole"
        counts = dict(whole.usage_metadata or {}) if whole else {}
        self._turn.usage = {key: count for key, count in counts.items() if isinstance(count, int)}

    def feed(self, chunk: AIMessageChunk) -> Iterator[Piece]:
        """Yield what is known now."""
        self._whole = self._whole + chunk if self._whole else chunk
        if thought := chunk.additional_kwargs.get("reasoning_content"):
            yield Piece(thought, thinking=True)
        yield from (Piece(*part) for part in self._thinking.feed(chunk.text))

    def end(self) -> Iterator[Piece]:
        """Yield what was held back."""
        yield from (Piece(*part) for part in self._thinking.end())


class _SavedTurn(BaseModel):
    model_config = ConfigDict(extra="forbid")

    text: str
    reply: str
    ended: Ended
    why: str = ""
    grimoire: str | None = None


class _Saved(BaseModel):
    model_config = ConfigDict(extra="forbid")

    sleicl: Literal["conversation"]
    system: str = ""
    turns: list[_SavedTurn]


def _system(system: str, grimoire: Grimoire | None) -> list[BaseMessage]:
    text = system.strip()
    if grimoire:
        text = fill("chat", system=text, description=grimoire.description, grimoire=grimoire.text()).strip()
    return [SystemMessage(text)] if text else []


def _without_oldest(messages: list[BaseMessage]) -> list[BaseMessage] | None:
    """Return what is left without the oldest turn; None where there is only one."""
    fixed = 1 if isinstance(messages[0], SystemMessage) else 0
    return [*messages[:fixed], *messages[fixed + 2 :]] if len(messages) > fixed + 1 else None


def _size(messages: Sequence[BaseMessage]) -> int:
    return sum(estimate_tokens(message.text) + _PER_TURN for message in messages)


def as_dict(turn: Turn) -> dict[str, Any]:
    """Return a turn as JSON data."""
    return {
        "text": turn.reply, "grimoire": turn.grimoire.id if turn.grimoire else None, "why": turn.why,
        "ended": turn.ended, "usage": turn.usage,
    }  # fmt: skip
