"""`Conversation.apieces`: what `pieces` does, without blocking and with options of the call."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from langchain_core.messages import BaseMessage
from langchain_core.outputs import ChatGenerationChunk

from sleicl_chains.errors import InputError, PromptTooLong
from sleicl_chains.serving.conversation import Conversation, Turn
from sleicl_chains.serving.picking import Pick
from tests.support.fake_models import written
from tests.support.serving import Talker


class Narrow(Talker):
    """Takes a prompt of so many messages."""

    room: int = 3
    context: int = 4096

    async def _astream(
        self, messages: list[BaseMessage], *args: Any, **more: Any
    ) -> AsyncIterator[ChatGenerationChunk]:
        if len(messages) > self.room:
            raise PromptTooLong(f"found {len(messages)}")
        async for chunk in super()._astream(messages, *args, **more):
            yield chunk


def talk_of(weak: Talker, *texts: str) -> Conversation:
    talk = Conversation(weak)
    talk.turns = [Turn(text, Pick(), f"reply to {text}", "whole") for text in texts]
    return talk


async def test_the_reply_comes_word_by_word_and_stays_in_the_talk() -> None:
    talk = talk_of(Talker(reply=lambda prompt: "<think>\nhm\n</think>\nall well"))
    pieces = [piece async for piece in talk.apieces("hi", max_tokens=9)]
    assert "".join(piece.text for piece in pieces if piece.thinking).strip() == "hm"
    assert "".join(piece.text for piece in pieces if not piece.thinking).strip() == "all well"
    (turn,) = talk.turns
    assert (turn.reply, turn.ended, turn.usage["output_tokens"]) == ("all well", "whole", 2)
    with pytest.raises(InputError, match="say something"):
        await anext(talk.apieces(" "))


async def test_the_oldest_turns_go_where_the_prompt_is_longer_than_estimated() -> None:
    weak = Narrow()
    talk = talk_of(weak, "one", "two", "three")
    assert "".join([piece.text async for piece in talk.apieces("four")]) == "You said four"
    assert weak.calls[0][0] == "human: three\nai: reply to three\nhuman: four"


async def test_a_reply_that_is_cancelled_is_stopped_and_an_error_fails_the_turn() -> None:
    weak = Talker(reply=lambda prompt: "word " * 99, pause_s=0.01)
    talk = talk_of(weak)
    begun = asyncio.Event()

    async def read() -> None:
        async for _ in talk.apieces("x"):
            begun.set()

    task = asyncio.create_task(read())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert talk.turns[0].ended == "stopped" and talk.turns[0].reply.startswith("word")
    weak.fails_at = 0
    with pytest.raises(RuntimeError):
        await read()
    assert [turn.ended for turn in talk.turns] == ["stopped", "failed"]


def test_room_is_kept_for_the_reply_that_is_asked_for_up_to_half_of_the_context() -> None:
    talk = talk_of(Narrow(context=400), *("word " * 20 for _ in range(9)))
    shown = [written(talk.messages("x", Pick(), reply=reply)).count("human: ") for reply in (10, 200, 10**6)]
    assert shown[0] > shown[1] == shown[2] > 1
