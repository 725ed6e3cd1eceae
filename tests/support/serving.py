"""A server of recipes and chat on loopback, in a thread, and a model that talks word by word."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from pydantic import Field

from sleicl_chains.answering.solver import solver
from sleicl_chains.files import Home
from sleicl_chains.grimoires.store import GrimoireStore
from sleicl_chains.serving.listening import listening, server_of
from sleicl_chains.serving.server.app import build
from sleicl_chains.serving.server.menu import Learned, Menu
from sleicl_chains.serving.server.requests import Limits
from tests.support.fake_models import Scorer, written
from tests.support.recipes import TASK


class Talker(BaseChatModel):
    """Answers a prompt by a function of it, a word a part, and keeps what it was asked."""

    reply: Callable[[str], str] = lambda prompt: f"You said {prompt.rpartition('human: ')[2]}"
    pause_s: float = 0.0
    """Before each word."""
    fails_at: int | None = None
    """The word in whose place an error comes."""
    problem: Exception = RuntimeError("no reason")
    calls: list[tuple[str, dict[str, Any]]] = Field(default_factory=list)
    """Prompts and options."""
    stopped: list[int] = Field(default_factory=list)
    """After how many words a reply was left."""

    @property
    def _llm_type(self) -> str:
        return "talker"

    def schema_option(self, schema: dict[str, Any]) -> dict[str, Any]:
        """Return the option that holds a reply to a schema."""
        return {"held_to": schema}

    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=AIMessage(self.reply(written(messages))))])

    async def _astream(
        self, messages: list[BaseMessage], stop: list[str] | None = None, run_manager: Any = None, **kwargs: Any
    ) -> AsyncIterator[ChatGenerationChunk]:
        prompt, at = written(messages), 0
        self.calls.append((prompt, {**kwargs, **({"stop": stop} if stop else {})}))
        words = self.reply(prompt).split(" ")
        try:
            for at, word in enumerate(words):  # it is read in the end
                await asyncio.sleep(self.pause_s)
                if at == self.fails_at:
                    raise self.problem
                yield ChatGenerationChunk(message=AIMessageChunk(content=f" {word}" if at else word))
        except asyncio.CancelledError:
            self.stopped.append(at)
            raise
        read = len(prompt.split())
        usage: Any = {"input_tokens": read, "output_tokens": len(words), "total_tokens": read + len(words)}
        end = AIMessageChunk(
            content="", usage_metadata=usage, response_metadata={"finish_reason": self._finish(kwargs, words)}
        )
        yield ChatGenerationChunk(message=end)

    def _finish(self, options: dict[str, Any], words: list[str]) -> str:
        return "length" if options.get("max_tokens", 10**6) < len(words) else "stop"


def desk(think: Callable[[str], dict[str, float]] | None = None) -> Learned:
    """Return a recipe at work on a model that scores labels."""
    scores = think or (lambda prompt: {"billing": 0.6, "technical": 0.2})
    chain = solver(Scorer(think=scores), TASK, mode="score", prior="none")
    return Learned("desk", TASK, chain, "desk-1", scored=True)


def menu_of(weak: BaseChatModel, home: Home, *recipes: Learned) -> Menu:
    """Return a menu of a chat and recipes."""
    return Menu({one.id: one for one in recipes}, weak, GrimoireStore(home))


class Serving:
    """A server that runs."""

    def __init__(self, address: str, log: list[str]) -> None:
        self.address, self.log = address, log

    @property
    def url(self) -> str:
        """Where OpenAI's API is."""
        return f"{self.address}/v1"

    def logged(self, count: int) -> list[str]:
        """Return the log once it has so many lines, without times."""
        for _ in range(200):
            if len(self.log) >= count:
                break
            time.sleep(0.02)
        return [line.partition(" ")[2].rpartition(", ")[0] if "tokens" not in line else line for line in self.log]


@contextmanager
def serving(menu: Menu, limits: Limits | None = None, **settings: Any) -> Iterator[Serving]:
    """Run a server in a thread."""
    log: list[str] = []
    with listening("127.0.0.1", 0) as (opened, address):
        server = server_of(build(menu, limits, log=log.append, **settings))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [opened]}, daemon=True)
        thread.start()
        while not server.started and thread.is_alive():
            time.sleep(0.005)
        try:
            yield Serving(address, log)
        finally:
            server.should_exit = True
            thread.join(10)
            assert not thread.is_alive()
