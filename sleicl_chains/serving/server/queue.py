"""The queue before a local model: a few requests run, some wait, and the rest are turned away at once."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Generic, TypeVar

Event = TypeVar("Event")


class QueueFull(Exception):
    """As many requests wait as may."""


class Queue:
    """Places for requests, first come, first served.

    Args:
        running: how many run at once.
        waiting: how many more may wait.
    """

    def __init__(self, *, running: int = 1, waiting: int = 32) -> None:
        self.most = waiting
        self.waiting = 0
        """How many wait now."""
        self.running = 0
        self._turns = asyncio.Semaphore(running)

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Wait for a turn and hold it.

        Raises:
            QueueFull: as many as may are waiting.
        """
        if self._turns.locked() and self.waiting >= self.most:
            raise QueueFull
        self.waiting += 1
        try:
            await self._turns.acquire()
        finally:
            self.waiting -= 1
        self.running += 1
        try:
            yield
        finally:
            self.running -= 1
            self._turns.release()


class Job(Generic[Event]):
    """A request at work in a task of its own, so that time, end and cancelling concern it alone; iterate its events.

    Args:
        queue: where it waits for its turn.
        events: what it does.
        within_s: how long it may take in all, waiting included, in seconds.

    Raises:
        QueueFull: (when iterated) it was turned away.
        TimeoutError: its time was up.
        Exception: whatever its work raised.
    """

    def __init__(self, queue: Queue, events: AsyncGenerator[Event, None], within_s: float) -> None:
        self._told: asyncio.Queue[Event | Exception | None] = asyncio.Queue()
        self._closed = False
        self._task = asyncio.create_task(self._work(queue, events, within_s))

    async def _work(self, queue: Queue, events: AsyncGenerator[Event, None], within_s: float) -> None:
        try:
            async with asyncio.timeout(within_s), queue.place(), aclosing(events):
                async for event in events:
                    self._told.put_nowait(event)
        except Exception as problem:
            self._told.put_nowait(problem)
        else:
            self._told.put_nowait(None)

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        event = await self._told.get()
        if event is None:
            raise StopAsyncIteration
        if isinstance(event, Exception):
            raise event
        return event

    def close(self) -> None:
        """Stop the work, and with it the model; once, since to cancel again would break off the tidying up."""
        if not self._closed:
            self._closed = True
            self._task.cancel()
