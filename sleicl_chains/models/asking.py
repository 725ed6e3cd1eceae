"""Asking a chat model: what the journal keeps is not asked again, and what comes is checked before it is kept."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from langchain_core.callbacks import CallbackManager
from langchain_core.language_models import BaseChatModel
from langchain_core.load import dumpd
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    message_chunk_to_message,
    messages_from_dict,
    messages_to_dict,
)
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGeneration, LLMResult
from langchain_core.runnables.config import ensure_config, run_in_executor

from sleicl_chains.errors import RejectedReply
from sleicl_chains.models.abilities import is_journalled, name_of
from sleicl_chains.models.identity import Model, former_request, request_of
from sleicl_chains.models.journal import Journal
from sleicl_chains.models.plain import now, plain
from sleicl_chains.models.turns import PAUSES_S, Reply, Turn

Found = TypeVar("Found")
Check = Callable[[AIMessage], object]
"""Raises RejectedReply for a reply that must not be used; asked of recalled replies too."""


def ask(
    model: Model,
    messages: Sequence[BaseMessage],
    journal: Journal | None,
    *,
    check: Check | None = None,
    **options: Any,
) -> AIMessage:
    """Return the journal's reply, or the model's after it was checked and kept; at most one model call.

    Its `response_metadata` holds `seconds`, which the model took, and `asked_at`, the UTC time; both
    are those of the call, however often it is recalled. A model whose attribute `journalled` is
    False is asked every time.

    Args:
        model: the chat model.
        messages: the prompt.
        journal: None to keep nothing.
        check: raises for a reply that must not be used; such a reply is kept as rejected.
        options: passed to the model, such as `stop`; part of the request.

    Raises:
        RejectedReply: by the check.
    """
    asks = partial(_timed, lambda: model.invoke(messages, **options))
    if journal is None or not is_journalled(model):
        return _checked(asks(), check)
    request, former = request_of(model, messages, options), partial(former_request, model, messages, options)
    return _message(journal.once(request, asks, check=_check_of(check), former=former))


async def aask(
    model: Model,
    messages: Sequence[BaseMessage],
    journal: Journal | None,
    *,
    check: Check | None = None,
    **options: Any,
) -> AIMessage:
    """Do the same as `ask` without blocking while the model works."""

    async def asks() -> Reply:
        started = time.perf_counter()
        return _reply(await model.ainvoke(messages, **options), time.perf_counter() - started)

    if journal is None or not is_journalled(model):
        return _checked(await asks(), check)
    # In a thread: a model may have to ask its server who it is.
    request = await run_in_executor(None, request_of, model, messages, options)
    former = partial(former_request, model, messages, options)
    return _message(await journal.aonce(request, asks, check=_check_of(check), former=former))


def stream(
    model: Model, messages: Sequence[BaseMessage], journal: Journal | None, *, check: Check | None = None
) -> Iterator[AIMessage]:
    """Yield the reply in chunks as the model gives it, and at last whole, after it was checked and kept.

    A recalled reply comes whole at once. Closing the generator ends the model's work; nothing is kept then. Costs and
    raises what `ask` does.
    """
    turn = _turn(model, messages, journal, check)
    try:
        while turn and not turn.ready():
            time.sleep(PAUSES_S[1])
        if turn and turn.reply is not None:
            yield _message(turn.reply)
            return
        started, whole = time.perf_counter(), _Whole()
        for chunk in model.stream(messages):
            yield whole.with_chunk(chunk)
        reply = _reply(whole.message, time.perf_counter() - started)
        if turn:
            turn.keep(reply)
        yield _message(turn.known) if turn else _checked(reply, check)
    finally:
        if turn:
            turn.leave()


async def astream(
    model: Model, messages: Sequence[BaseMessage], journal: Journal | None, *, check: Check | None = None
) -> AsyncGenerator[AIMessage, None]:
    """Do the same as `stream` without blocking; cancelling ends the model's work."""
    turn = await run_in_executor(None, _turn, model, messages, journal, check)
    try:
        while turn and not await run_in_executor(None, turn.ready):
            await asyncio.sleep(PAUSES_S[1])
        if turn and turn.reply is not None:
            yield _message(turn.reply)
            return
        started, whole = time.perf_counter(), _Whole()
        async for chunk in model.astream(messages):
            yield whole.with_chunk(chunk)
        reply = _reply(whole.message, time.perf_counter() - started)
        if turn:  # shielded: a task that is cancelled now must not lose a reply that has come whole
            await asyncio.shield(run_in_executor(None, turn.keep, reply))
        yield _message(turn.known) if turn else _checked(reply, check)
    finally:
        if turn:
            await run_in_executor(None, turn.leave)


def _turn(model: Model, messages: Sequence[BaseMessage], journal: Journal | None, check: Check | None) -> Turn | None:
    """Return the request's place in the queue of equal ones; None where nothing is kept."""
    if journal is None or not is_journalled(model):
        return None
    former = partial(former_request, model, messages, {})
    return Turn(journal, request_of(model, messages, {}), _check_of(check), former)


class _Whole:
    """Chunks of a reply, put together."""

    def __init__(self) -> None:
        self._so_far: AIMessageChunk | None = None

    def with_chunk(self, chunk: AIMessage) -> AIMessageChunk:
        assert isinstance(chunk, AIMessageChunk)
        self._so_far = chunk if self._so_far is None else self._so_far + chunk
        return chunk

    @property
    def message(self) -> AIMessage:
        """The whole message."""
        if self._so_far is None:
            raise RejectedReply("the reply is empty; expected a text")
        message = message_chunk_to_message(self._so_far)
        assert isinstance(message, AIMessage)
        return message


def as_child_run(
    model: BaseChatModel,
    messages: Sequence[BaseMessage],
    call: Callable[[], Found],
    *,
    prompt_tokens: Callable[[Found], int],
    **asked: Any,
) -> Found:
    """Return what `call` does with the model, as a child run of the chain that asks.

    So LangChain sees calls that it has no word for, such as scoring labels: tracing, rate limiters, tags, metadata and
    `get_usage_metadata_callback()` work as in `invoke`. The run's reply is an empty AI message with the tokens that
    were read; an error ends the run.

    Args:
        model: whose call it is.
        messages: what it is shown.
        call: asks it.
        prompt_tokens: takes them from what `call` returns.
        asked: what tells this call from others, for the run's parameters, such as `op="score_labels"`.
    """
    config = ensure_config()
    about = {**(model.metadata or {}), **model._get_ls_params()}
    manager = CallbackManager.configure(
        config.get("callbacks"), model.callbacks, model.verbose, config.get("tags"), model.tags,
        config.get("metadata"), about,
    )  # fmt: skip
    if model.rate_limiter:
        model.rate_limiter.acquire(blocking=True)
    [run] = manager.on_chat_model_start(dumpd(model), [list(messages)], invocation_params=asked, name=name_of(model))
    try:
        found = call()
    except BaseException as problem:
        run.on_llm_error(problem, response=LLMResult(generations=[]))
        raise
    read = prompt_tokens(found)
    usage = UsageMetadata(input_tokens=read, output_tokens=0, total_tokens=read)
    message = AIMessage("", usage_metadata=usage, response_metadata={"model_name": name_of(model)})
    run.on_llm_end(LLMResult(generations=[[ChatGeneration(message=message)]]))
    return found


def used(message: AIMessage) -> dict[str, int]:
    """Return the tokens of a call as `Answer.usage` has them; empty where the model reports none."""
    found = message.usage_metadata
    return {"prompt_tokens": found["input_tokens"], "reply_tokens": found["output_tokens"]} if found else {}


def _timed(ask: Callable[[], AIMessage]) -> Reply:
    started = time.perf_counter()
    return _reply(ask(), time.perf_counter() - started)


def _reply(message: AIMessage, seconds: float) -> Reply:
    asked_at = message.response_metadata.get("asked_at") or now()
    kept: Reply = plain({"message": messages_to_dict([message])[0], "seconds": seconds, "asked_at": asked_at})
    return kept


def _check_of(check: Check | None) -> Callable[[Reply], object] | None:
    return (lambda reply: _checked(reply, check)) if check else None


def _checked(reply: Reply, check: Check | None) -> AIMessage:
    message = _message(reply)
    try:
        if check:
            check(message)
    except RejectedReply as problem:
        problem.usage = used(message)
        raise
    return message


def _message(reply: Mapping[str, Any]) -> AIMessage:
    message = messages_from_dict([reply["message"]])[0]
    assert isinstance(message, AIMessage)
    message.response_metadata |= {"seconds": reply["seconds"], "asked_at": reply["asked_at"]}
    return message
