"""How long and how large a reply may get: what trickles is ended, what has no end is not gathered."""

import asyncio
import socket
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import httpx

from sleicl_chains.errors import GarbledReply

LARGEST = 16 * 2**20
"""Bytes of a line, or of a reply that comes whole. 64 vectors of 8,192 numbers, the largest known, have 12 million."""


@contextmanager
def ended_after(seconds: float) -> Iterator[dict[str, Any]]:
    """Give extensions for one httpx request, whose connection is cut when the block lasts longer.

    httpx bounds each silence alone, so that a byte now and then, in the headers too, would hold it for ever.

    Raises:
        TimeoutError: the time was up.
    """
    up = threading.Event()
    opened: list[socket.socket] = []

    def note(event: str, found: dict[str, Any]) -> None:
        if event.endswith(("connect_tcp.complete", "start_tls.complete")):
            opened.append(found["return_value"].get_extra_info("socket"))

    def cut() -> None:
        up.set()
        with suppress(OSError):  # it is closed already
            for one in opened[-1:]:
                socket.socket.shutdown(one, socket.SHUT_RDWR)  # wakes who waits for it; `close` would not

    timer = threading.Timer(seconds, cut)
    timer.daemon = True
    timer.start()
    try:
        yield {"trace": note}
    except httpx.TransportError:
        if not up.is_set():
            raise
    finally:
        timer.cancel()
    if up.is_set():  # without an error as well: to a reply of no announced length the cut is its end
        raise TimeoutError


async def until(ends: float, chunks: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    """Yield what comes before a time of the event loop's clock. Raises TimeoutError after it."""
    while True:
        async with asyncio.timeout_at(ends):
            chunk = await anext(chunks, None)
        if chunk is None:
            return
        yield chunk


def whole(chunks: Iterable[bytes], url: str) -> str:
    """Return a reply's text. Raises GarbledReply where it is too large."""
    gathered = bytearray()
    for chunk in chunks:
        _add(gathered, chunk, url)
    return gathered.decode(errors="replace")


class Lines:
    """Splits what comes into lines, at newlines alone: JSON may hold other line separators as text."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._begun = bytearray()

    def of(self, chunk: bytes) -> Iterator[str]:
        """Yield the lines that a chunk ends. Raises GarbledReply where one is too large."""
        *ended, rest = chunk.split(b"\n")
        for piece in ended:
            _add(self._begun, piece, self._url)
            yield from self.rest()
        _add(self._begun, rest, self._url)

    def rest(self) -> Iterator[str]:
        """Yield the line that has begun, if it holds anything."""
        line = self._begun.decode(errors="replace")
        self._begun.clear()
        if line.strip():
            yield line


def _add(gathered: bytearray, chunk: bytes, url: str) -> None:
    if len(gathered) + len(chunk) > LARGEST:
        raise GarbledReply(
            f"What answers at {url} sent more than {LARGEST // 2**20} MiB without an end, which Ollama does not do. "
            "Check OLLAMA_HOST, and any proxy between"
        )
    gathered += chunk
