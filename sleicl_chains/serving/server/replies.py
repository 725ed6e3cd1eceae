"""One request's reply, whichever API it came by: what stands before the model, the words as they come, how it ends."""

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage

from sleicl_chains.answers import Answer
from sleicl_chains.models.abilities import schema_option
from sleicl_chains.serving.conversation import Conversation
from sleicl_chains.serving.server.failures import Failure, wrong
from sleicl_chains.serving.server.menu import Chat, Learned, near

JSON_FIELD = "answer"
"""Where a recipe's answer stands in a JSON object whose fields the client does not name."""
_CUT = "the reply was cut"
"""How the note of an open-ended answer begins that reached its limit."""


@dataclass(frozen=True)
class Asked:
    """What a client wants, in the words of neither API."""

    messages: Sequence[BaseMessage]
    """System texts, and a talk of user and model."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Of the model's call: `max_tokens`, `temperature`, `seed`, `stop`."""
    schema: Mapping[str, Any] | None = None
    """The JSON schema that the reply is held to; an empty one takes any object."""
    schema_field: str = "response_format"
    """Where it stood."""
    unknown: tuple[str, ...] = ()
    """Fields that nothing is made of."""


def call_options(
    *, max_tokens: int | None, temperature: float | None, seed: int | None, stop: Sequence[str] | None
) -> dict[str, Any]:
    """Return the options of a model's call under LangChain's names, without those that the client left out."""
    given = {
        "max_tokens": max_tokens, "temperature": temperature, "seed": None if seed is None else seed % 2**31,
        "stop": [one for one in stop or () if one] or None,
    }  # fmt: skip
    return {name: value for name, value in given.items() if value is not None}


@dataclass(frozen=True)
class Begun:
    """What stands before the model."""

    grimoire: str | None
    why: str
    ignored: tuple[str, ...] = ()
    """Parts of the request that decide nothing."""


@dataclass(frozen=True)
class Part:
    """Some of the reply's words."""

    text: str
    thinking: bool = False


@dataclass(frozen=True)
class Ended:
    """The end of a reply that came whole, or up to its limit."""

    finish: Literal["stop", "length"] = "stop"
    prompt_tokens: int | None = None
    """None where the model does not count."""
    reply_tokens: int | None = None
    answer: Answer | None = None
    """A recipe's."""
    refusal: str = ""
    """Why there is no answer in the form that was asked for."""

    @property
    def total(self) -> int:
        """Tokens in all."""
        return (self.prompt_tokens or 0) + (self.reply_tokens or 0)


Event = Begun | Part | Ended


def reply(served: Learned | Chat, asked: Asked) -> AsyncGenerator[Event, None]:
    """Yield a reply: how it begins, its parts, its end.

    Raises:
        Failure: (when iterated) something is asked for that this model does not give.
        SleiclError: the model does not answer.
    """
    return _talked(served, asked) if isinstance(served, Chat) else _answered(served, asked)


async def _talked(served: Chat, asked: Asked) -> AsyncGenerator[Event, None]:
    before, text, ignored = _talk(asked.messages)
    options = dict(asked.options)
    if asked.schema is not None:
        held = schema_option(served.weak, asked.schema or {"type": "object"})
        if held is None:
            raise wrong(asked.schema_field, "this chat's model cannot be held to a schema; leave it out")
        options |= held
    talk = await asyncio.to_thread(_opened, served, before)
    begun = False
    async with aclosing(talk.apieces(text, **options)) as pieces:
        async for piece in pieces:
            if not begun:
                begun = True
                yield _begun(talk, (*ignored, *asked.unknown))
            yield Part(piece.text, piece.thinking)
    turn = talk.turns[-1]
    if not begun:
        yield _begun(talk, (*ignored, *asked.unknown))
    counts = turn.usage.get("input_tokens"), turn.usage.get("output_tokens")
    yield Ended("length" if turn.ended == "cut" else "stop", *counts)


def _opened(served: Chat, before: Sequence[BaseMessage]) -> Conversation:
    known = served.unreadable()
    return Conversation.of(served.weak, served.store, before, grimoire=served.grimoire, unreadable=known)


def _begun(talk: Conversation, ignored: tuple[str, ...]) -> Begun:
    turn = talk.turns[-1]
    return Begun(turn.grimoire.id if turn.grimoire else None, turn.why, ignored)


def _talk(messages: Sequence[BaseMessage]) -> tuple[list[BaseMessage], str, tuple[str, ...]]:
    """Return the talk so far, the last message, and what is left out: a greeting that the client put first.

    Messages of one side in a row count as one.
    """
    system = [one for one in messages if isinstance(one, SystemMessage)]
    turns: list[BaseMessage] = []
    for one in messages:
        if isinstance(one, SystemMessage):
            continue
        if turns and turns[-1].type == one.type:
            turns[-1] = type(one)(f"{turns[-1].text}\n\n{one.text}")
        else:
            turns.append(one)
    greeting = bool(turns) and isinstance(turns[0], AIMessage)
    turns = turns[greeting:]
    if not turns or not isinstance(turns[-1], HumanMessage) or not turns[-1].text.strip():
        raise wrong("messages", "the last one must be the user's, and say something")
    return [*system, *turns[:-1]], turns[-1].text, ("greeting",) if greeting else ()


async def _answered(served: Learned, asked: Asked) -> AsyncGenerator[Event, None]:
    question = asked.messages[-1].text if asked.messages else ""
    if not asked.messages or not isinstance(asked.messages[-1], HumanMessage) or not question.strip():
        raise wrong("messages", "the last one must be the user's: it is the recipe's question")
    name = _field(asked, served.task.labels) if asked.schema is not None else ""
    yield Begun(served.grimoire, "the recipe's" if served.grimoire else "the recipe shows none", _ignored(asked))
    whole: Answer | None = None
    async with aclosing(cast(AsyncGenerator[Answer, None], served.chain.astream(question))) as pieces:
        async for piece in pieces:
            whole = whole + piece if whole else piece
            if not served.task.labels and piece.text:
                yield Part(piece.text)
    assert whole is not None  # a chain gives an answer or raises
    said = json.dumps({name: whole.answer}, ensure_ascii=False) if name else whole.answer or whole.text
    refusal = f"The reply names no label: {whole.text!r}" if name and not whole.answer else ""
    if served.task.labels and said and not refusal:
        yield Part(said)
    finish: Literal["stop", "length"] = "length" if whole.note.startswith(_CUT) else "stop"
    yield Ended(finish, whole.usage.get("prompt_tokens"), whole.usage.get("reply_tokens"), whole, refusal)


def _ignored(asked: Asked) -> tuple[str, ...]:
    """Return the parts of a request that a recipe does not look at, for it says itself how it is asked."""
    earlier = asked.messages[:-1]
    found = ["system"] if any(isinstance(one, SystemMessage) for one in earlier) else []
    found += ["earlier turns"] if any(not isinstance(one, SystemMessage) for one in earlier) else []
    return (*found, *asked.options, *asked.unknown)


def _field(asked: Asked, labels: Sequence[str]) -> str:
    """Return the field of the JSON object that is to hold the label.

    Raises:
        Failure: the schema is not that of one string among the task's labels.
    """
    where, schema = asked.schema_field, asked.schema or {}
    if not labels:
        raise wrong(where, "this recipe's answers are free text; ask for text")
    if not schema or schema == {"type": "object"}:
        return JSON_FIELD
    fields = schema.get("properties")
    if not isinstance(fields, Mapping) or len(fields) != 1:
        raise wrong(where, "a recipe fills an object of one field, an enum of its labels")
    ((name, form),) = fields.items()
    if isinstance(form, Mapping) and isinstance(form.get("$ref"), str):
        kind, _, word = form["$ref"].removeprefix("#/").partition("/")
        form = (schema.get(kind) or {}).get(word) if isinstance(schema.get(kind), Mapping) else None
    found = form.get("enum") if isinstance(form, Mapping) else None
    if not isinstance(found, list) or set(map(str, found)) != set(labels):
        raise wrong(where, f"the field {str(name)[:80]!r} must be an enum of {', '.join(labels)}")
    return str(name)


def shares(answer: Answer) -> list[tuple[str, float]]:
    """Return every label's probability: first the answer's, as the recipe gives it, then the others' by their shares.

    They add up to 1, also where the probability was calibrated and the shares were not.
    """
    if not answer.label or answer.probability is None:
        return []
    others = {label: share for label, share in answer.scores.items() if label != answer.label}
    total = sum(others.values())
    left = 1 - answer.probability
    rest = [(label, left * share / total if total else left / len(others)) for label, share in others.items()]
    return [(answer.label, answer.probability), *sorted(rest, key=lambda one: -one[1])]


def check_shares(served: Learned | Chat) -> None:
    """Refuse to give log-probabilities of what is written in words.

    Raises:
        Failure: the model gives none.
    """
    if isinstance(served, Chat):
        raise wrong("logprobs", "chat gives no log-probabilities; recipes that read label scores do")
    if not served.scored:
        raise wrong("logprobs", "this recipe reads the model's words, which gives no log-probabilities")


def missing(name: str, names: Sequence[str]) -> Failure:
    """Return the failure of a request for a model that is not served."""
    like = near(name, names)
    more = f" Did you mean {', '.join(like)}?" if like else ""
    return Failure(
        404, f"There is no model {name[:100]!r} here; GET /v1/models lists them.{more}",
        code="model_not_found", param="model",
    )  # fmt: skip
