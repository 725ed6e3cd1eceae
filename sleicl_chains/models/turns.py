"""Turns: of equal requests in flight one is asked, and the others wait for its reply."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Protocol

from sleicl_chains.errors import RejectedReply
from sleicl_chains.models.plain import as_json, key_of

Reply = dict[str, Any]
"""What a model gave, as JSON data."""
Request = Mapping[str, Any]

PAUSES_S = (0.005, 0.1)
"""Between two looks for the reply that is waited for: the first, and the longest."""

_HELD: ContextVar[frozenset[tuple[str, str]]] = ContextVar("_HELD", default=frozenset())
"""The journals and keys of the requests that are being asked around here: waiting for one would never end."""


class Ledger(Protocol):
    """What turns are taken by: who asks what, and what came of it. The journal is one."""

    path: Path

    def find(self, key: str) -> Reply | None:
        """Return the accepted reply, if there is one."""
        ...

    def claim(self, key: str) -> tuple[str, float] | None:
        """Note that a request is being asked; None where another is at it."""
        ...

    def absorb(self) -> None:
        """Take in what had to be kept elsewhere."""
        ...

    def keep(self, key: str, request: str, reply: Reply, rejected: str | None = None) -> Reply:
        """Keep a reply that has been paid for, and return the one that counts."""
        ...

    def reject(self, key: str, reason: str) -> None:
        """Keep an accepted reply as a rejected one from now on."""
        ...

    def give_back(self, key: str, claim: tuple[str, float]) -> None:
        """Let others ask what this one had claimed."""
        ...


class Turn:
    """One request's place in the queue of equal ones."""

    def __init__(
        self,
        journal: Ledger,
        request: Request,
        check: Callable[[Reply], object] | None = None,
        former: Callable[[], Request] | None = None,
    ) -> None:
        self.journal, self.check = journal, check
        self.request = as_json(request)
        self.key = key_of(self.request)
        self.mark = (str(journal.path), self.key)
        self.reply: Reply | None = None
        self.over = False
        """Whether nothing is claimed any more."""
        self._former = former
        self._within = self.mark in _HELD.get()
        self._claimed: tuple[str, float] | None = None
        self._lock = threading.RLock()

    @property
    def known(self) -> Reply:
        """The reply, once there is one."""
        assert self.reply is not None
        return self.reply

    def ready(self) -> bool:
        """Return whether there is nothing to wait for: there is a `reply`, or it is this one's turn to ask."""
        with self._lock:
            if self.over or self._found():
                return True
            if not self._within:
                self._claimed = self.journal.claim(self.key)
                if self._claimed is None:
                    return False
                self.journal.absorb()
                self._found()  # another may have answered between the look and the claim
            return True

    def _found(self) -> bool:
        found_under, self.reply = self.key, self.journal.find(self.key)
        if self.reply is None and self._former:
            before, self._former = key_of(as_json(self._former())), None
            found_under, self.reply = before, self.journal.find(before) if before != self.key else None
        if self.reply is not None and self._is_good(self.reply, found_under):
            self.leave()
        return self.over

    def _is_good(self, reply: Reply, key: str) -> bool:
        """Say whether a kept reply passes the check; one that was accepted before there was this check is rejected."""
        try:
            if self.check:
                self.check(reply)
        except RejectedReply as problem:
            self.journal.reject(key, str(problem))
            self.reply = None
        return self.reply is not None

    def keep(self, reply: Reply) -> None:
        """Keep what was asked for, and let the next one look.

        Raises:
            Exception: by the check; the reply is kept as rejected.
        """
        with self._lock:
            try:
                if self.check:
                    self.check(reply)
            except Exception as problem:
                self.journal.keep(self.key, self.request, reply, rejected=str(problem))
                raise
            else:
                self.reply = self.journal.keep(self.key, self.request, reply)
            finally:
                self.leave()

    def leave(self) -> None:
        """Give back what was claimed, so that the next one may ask."""
        with self._lock:
            claimed, self._claimed, self.over = self._claimed, None, True
            if claimed:
                self.journal.give_back(self.key, claimed)


@contextmanager
def held(turns: Sequence[Turn]) -> Iterator[None]:
    """Let what is asked within use the journal for these very requests without waiting for itself."""
    before = _HELD.set(_HELD.get() | {turn.mark for turn in turns})
    try:
        yield
    finally:
        _HELD.reset(before)


def settle(turns: Sequence[Turn], ask: Callable[[list[int]], Sequence[Reply]]) -> None:
    """Ask for what is nobody's, together, and wait for the rest; nothing is held while waiting."""
    waiting, pause = list(range(len(turns))), PAUSES_S[0]
    try:
        while waiting:
            ready = [at for at in waiting if turns[at].ready()]
            if mine := [at for at in ready if turns[at].reply is None]:
                with held([turns[at] for at in mine]):
                    replies = ask(mine)
                for at, reply in zip(mine, replies, strict=True):
                    turns[at].keep(reply)
            waiting = [at for at in waiting if at not in set(ready)]
            if waiting and not ready:
                time.sleep(pause)
                pause = min(2 * pause, PAUSES_S[1])
    finally:
        for turn in turns:
            turn.leave()
