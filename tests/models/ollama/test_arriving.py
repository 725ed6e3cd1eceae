"""Replies that trickle, that have no end, and that nobody waits for any more."""

import asyncio
import contextlib
import gc
import json
import socket
import threading
import time
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import replace
from typing import Any

import pytest

from sleicl_chains.errors import GarbledReply, TimedOut
from sleicl_chains.models.ollama.address import Address
from sleicl_chains.models.ollama.arriving import LARGEST, Lines
from sleicl_chains.models.ollama.model import OllamaModel
from sleicl_chains.models.ollama.server import Server
from tests.support.ollama_server import CHAT, OllamaServer, answering, chat, model

Talk = Callable[[socket.socket, threading.Event], None]
HEAD = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"


@contextmanager
def talking(talk: Talk) -> Iterator[str]:
    """Serve one connection after the other by hand, and give the address."""
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            while not over.is_set():
                with contextlib.suppress(OSError):
                    connection = listening.accept()[0]
                    with connection:
                        connection.recv(65536)
                        talk(connection, over)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        over.set()
        listening.shutdown(socket.SHUT_RDWR)
        thread.join(5)


def drops(text: bytes) -> Talk:
    """Send the text a byte at a time, then blanks for ever: the client is never left in silence."""

    def talk(connection: socket.socket, over: threading.Event) -> None:
        at = 0
        while not over.wait(0.02):
            connection.sendall(text[at : at + 1] or b" ")
            at += 1

    return talk


async def _collected(parts: AsyncIterator[Any]) -> list[Any]:
    return [part async for part in parts]


WAYS: dict[str, Callable[[Server], object]] = {
    "get": lambda server: server.get("/api/version"),
    "post": lambda server: server.post("/api/show", {}),
    "stream": lambda server: list(server.stream("/api/chat", {})),
    "astream": lambda server: asyncio.run(_collected(server.astream("/api/chat", {}))),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("text", [HEAD, b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 9999], ids=["body", "headers"])
def test_a_trickling_reply_ends(way: str, text: bytes) -> None:
    whole = way in ("get", "post")
    silence, deadline = (0.5, 3600.0) if whole else (5.0, 0.5)
    with talking(drops(text)) as url, pytest.raises(TimedOut, match=r"did not end its reply within 0.5 s") as found:
        started = time.monotonic()
        WAYS[way](Server(Address(url), timeout_s=silence, deadline_s=deadline))
    assert 0.4 < time.monotonic() - started < 2
    assert ("timeout_s=1.5" if whole else "deadline_s=1.5") in str(found.value)


@pytest.mark.parametrize("way", ["invoke", "stream", "ainvoke", "astream"])
def test_a_model_that_trickles_ends(way: str) -> None:
    slow = replace(chat("word " * 500), pause_s=0.05)
    with answering(slow) as server, pytest.raises(TimedOut, match="deadline_s=1.8"):
        _use(model(server, deadline_s=0.6), way)


def test_a_slow_reply_within_its_time_is_whole() -> None:
    with answering(replace(chat("Grass is green."), pause_s=0.05)) as server:
        weak = model(server, deadline_s=5)
        for way in ("invoke", "stream", "ainvoke", "astream"):
            assert _use(weak, way) == "Grass is green. "
    gc.collect()


def _use(weak: OllamaModel, way: str) -> str:
    if way == "invoke":
        return weak.invoke(CHAT).text
    if way == "stream":
        return "".join(part.text for part in weak.stream(CHAT))
    if way == "ainvoke":
        return asyncio.run(weak.ainvoke(CHAT)).text
    return "".join(part.text for part in asyncio.run(_collected(weak.astream(CHAT))))


# ------------------------------------------------------------------ size


def _flood(connection: socket.socket, over: threading.Event) -> None:
    """Send 120 MB without a newline."""
    connection.sendall(HEAD + b'{"message": "')
    for _ in range(120):
        connection.sendall(b"x" * 10**6)


@pytest.mark.parametrize("way", WAYS)
def test_a_line_without_an_end_is_not_gathered(way: str) -> None:
    with talking(_flood) as url, pytest.raises(GarbledReply, match="sent more than 16 MiB without an end"):
        tracemalloc.start()
        try:
            WAYS[way](Server(Address(url), timeout_s=20))
        finally:
            most = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
    assert most < 3 * LARGEST


def test_lines_end_at_newlines_alone() -> None:
    """JSON may hold what `splitlines` takes for the end of a line."""
    text = "a\x85b\u2028c\x0bd"
    lines = Lines("http://box")
    data = (json.dumps({"text": text}, ensure_ascii=False) + "\r\n\n{}").encode()
    found = [line for at in range(0, len(data), 3) for line in lines.of(data[at : at + 3])]
    assert [json.loads(line) for line in [*found, *lines.rest()]] == [{"text": text.replace("\x0b", "\x0b")}, {}]
    assert list(lines.rest()) == []


# ------------------------------------------------------------------ given up


async def _cancelled(weak: OllamaModel, way: str) -> None:
    begun = asyncio.Event()

    async def read() -> None:
        if way == "ainvoke":
            begun.set()
            await weak.ainvoke(CHAT)
        async for _ in weak.astream(CHAT):
            begun.set()

    task = asyncio.create_task(read())
    await begun.wait()
    await asyncio.sleep(0.5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def _left(weak: OllamaModel) -> None:
    async for _ in weak.astream(CHAT):
        break
    await asyncio.sleep(0.05)


async def _closed(weak: OllamaModel) -> None:
    async with aclosing(weak.astream(CHAT)) as parts:  # type: ignore[type-var]  # it is a generator
        await anext(parts)
    await asyncio.sleep(0.05)


GIVEN_UP: dict[str, Callable[[OllamaModel], object]] = {
    "ainvoke is cancelled": lambda weak: asyncio.run(_cancelled(weak, "ainvoke")),
    "astream is cancelled": lambda weak: asyncio.run(_cancelled(weak, "astream")),
    "astream is left": lambda weak: asyncio.run(_left(weak)),
    "astream is closed": lambda weak: asyncio.run(_closed(weak)),
    "stream is left": lambda weak: next(iter(weak.stream(CHAT))),
}


@pytest.mark.parametrize("way", GIVEN_UP)
def test_a_reply_that_nobody_waits_for_is_stopped(way: str) -> None:
    with answering(replace(chat("word " * 2000), pause_s=0.01)) as server:
        GIVEN_UP[way](model(server))
        gc.collect()
        assert server.left.acquire(timeout=3), "the server still sends"


def test_a_stream_comes_part_by_part() -> None:
    """The first part is there long before the last one is sent."""
    with answering(replace(chat("one two three four"), pause_s=0.2)) as server:
        weak = model(server)
        weak.known  # noqa: B018 - asks the server first, which is not to be timed
        started, times = time.monotonic(), []
        for part in weak.stream(CHAT):
            times.append((part.text, time.monotonic() - started))
    assert [text for text, _ in times if text] == ["one ", "two ", "three ", "four "]
    assert times[3][1] - times[0][1] > 0.4


def test_one_server_keeps_its_limits_apart(server: OllamaServer) -> None:
    weak = OllamaModel(model="smollm2:135m", base_url=server.url, timeout_s=7, deadline_s=9)
    assert (weak.server.timeout_s, weak.server.deadline_s) == (7, 9)
    assert (OllamaModel(model="m").server.timeout_s, OllamaModel(model="m").server.deadline_s) == (600, 3600)
