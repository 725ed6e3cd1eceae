"""HTTP around a reply, for both APIs: a body within bounds, a job that ends with its client, a stream that stops it."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from sleicl_chains.serving.server.failures import Failure, failure_of, first_complaint_of
from sleicl_chains.serving.server.menu import Chat, Learned, Menu
from sleicl_chains.serving.server.metrics import Record
from sleicl_chains.serving.server.queue import Job, Queue
from sleicl_chains.serving.server.replies import Asked, Begun, Ended, Event, Part, missing, reply

GONE = 499
"""The status, in the log alone, of a request whose client went: nginx's word for it."""
_QUOTES = str.maketrans("\u201c\u201d\u2018\u2019", "\"\"''")
_BODY_S = 30.0
"""How long a request's body may take to arrive."""
Form = TypeVar("Form", bound=BaseModel)
Found = TypeVar("Found")


@dataclass(frozen=True)
class Limits:
    """What one server takes upon itself."""

    body_bytes: int = 2**20
    """Largest request."""
    waiting: int = 32
    """Requests that wait while others run."""
    running: int = 1
    """Requests that run at once."""
    seconds: float = 300.0
    """Longest request, from its arrival to its last word."""


async def read(request: Request, form: type[Form], most: int) -> Form:
    """Return a request's body, whatever content type it calls itself.

    Raises:
        Failure: it is too large, comes too slowly, or is not what it must be.
    """
    body = bytearray()
    try:
        async with asyncio.timeout(_BODY_S):
            async for chunk in request.stream():
                body += chunk
                if len(body) > most:
                    raise Failure(413, f"The request has more than {most:,} bytes", code="request_too_large")
    except TimeoutError:
        raise Failure(408, f"The request did not arrive within {_BODY_S:g} s", code="timeout") from None
    try:
        return form.model_validate_json(bytes(body))
    except ValidationError as problem:
        raise first_complaint_of([*problem.errors(include_url=False, include_input=False)]) from None


class Service:
    """The models of a menu at work for requests."""

    def __init__(self, menu: Menu, queue: Queue, limits: Limits) -> None:
        self.menu, self.queue, self.limits = menu, queue, limits
        # The library is read in threads of its own: those that all share may wait for a model's server.
        self._readers = ThreadPoolExecutor(2, "library")

    async def names(self) -> list[str]:
        """Return the ids of all models."""
        return await asyncio.get_running_loop().run_in_executor(self._readers, self.menu.names)

    async def model(self, request: Request, name: str) -> Learned | Chat:
        """Return the model of an id, and note it.

        Raises:
            Failure: there is none.
        """
        found = await asyncio.get_running_loop().run_in_executor(self._readers, self.menu.find, name)
        if found is None:
            raise missing(name, await self.names())
        record_of(request).model = found.id
        return found

    async def begin(self, request: Request, served: Learned | Chat, asked: Asked) -> "Running":
        """Start a job and wait for its first word, so that what fails before it has a status of its own.

        Raises:
            Failure: it failed.
        """
        job = Job(self.queue, reply(served, asked), self.limits.seconds)
        running = Running(job, record_of(request))
        try:
            await _until_gone(request, running.start())
        except BaseException:
            job.close()
            raise
        return running


class Running:
    """A job whose beginning is known."""

    def __init__(self, job: Job[Event], record: Record) -> None:
        self.job, self.record = job, record
        self.begun = Begun(None, "")
        self.over = False
        """Whether its end is known."""
        self._first: list[Part | Ended] = []

    async def start(self) -> None:
        """Wait for the first word or the end."""
        try:
            async for event in self.job:
                if isinstance(event, Begun):
                    self.begun = event
                    continue
                self._first.append(self._noted(event))
                return
        except Exception as problem:
            raise failure_of(problem) from problem

    async def events(self) -> AsyncGenerator[Part | Ended, None]:
        """Yield the reply. A failure in the midst of it is noted."""
        try:
            for first in self._first:
                yield first
            async for event in self.job:
                if not isinstance(event, Begun):
                    yield self._noted(event)
        except Exception as problem:
            found = failure_of(problem)
            self.record.status, self.over = found.status, True
            raise found from problem
        finally:
            self.job.close()

    def _noted(self, event: Part | Ended) -> Part | Ended:
        if isinstance(event, Ended):
            self.over = True
            self.record.prompt_tokens, self.record.reply_tokens = event.prompt_tokens or 0, event.reply_tokens or 0
        return event

    async def whole(self, request: Request) -> "Whole":
        """Wait for all of it.

        Raises:
            Failure: it failed.
        """
        return await _until_gone(request, self._gathered())

    async def _gathered(self) -> "Whole":
        said: list[str] = []
        thought: list[str] = []
        async with aclosing(self.events()) as events:
            async for event in events:
                if isinstance(event, Ended):
                    return Whole("".join(said), "".join(thought), event)
                (thought if event.thinking else said).append(event.text)
        raise Failure(500, "The reply has no end", code="internal_error")


@dataclass(frozen=True)
class Whole:
    """A reply that came whole."""

    text: str
    thinking: str
    ended: Ended


class Streamed(StreamingResponse):
    """A reply as it comes. Where the client goes, its job is closed, and the model stops."""

    def __init__(
        self, running: Running, lines: AsyncIterator[str], *, media_type: str, headers: dict[str, str]
    ) -> None:
        super().__init__(lines, media_type=media_type, headers=headers | {"Cache-Control": "no-cache"})
        self._running = running

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._running.job.close()
            if not self._running.over:
                self._running.record.status = GONE


async def _until_gone(request: Request, work: Coroutine[Any, Any, Found]) -> Found:
    """Do some work; where the client goes, stop.

    Raises:
        ClientDisconnect: it went.
    """
    task, gone = asyncio.create_task(work), asyncio.create_task(_gone(request))
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        task.cancel()
        gone.cancel()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def record_of(request: Request) -> Record:
    """Return what is noted of a request."""
    record: Record = request.scope["sleicl"]
    return record


def headers_of(begun: Begun) -> dict[str, str]:
    """Return the headers that say what stood before the model; in ASCII, whatever a library's texts hold."""
    told = {"x-sleicl-grimoire": begun.grimoire or "none", "x-sleicl-why": begun.why}
    told |= {"x-sleicl-ignored": ", ".join(begun.ignored)} if begun.ignored else {}
    return {name: _plain(value) for name, value in told.items()}


def _plain(text: str) -> str:
    shown = text.translate(_QUOTES).encode("ascii", "backslashreplace").decode()
    return "".join(one if one.isprintable() else " " for one in shown)[:500]


def unknown(fields: Sequence[str]) -> tuple[str, ...]:
    """Return the names of fields that nothing is made of, few and short enough for a header."""
    return tuple(name[:40] for name in fields if name.isidentifier())[:20]
