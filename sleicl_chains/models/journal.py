"""The journal: every model call by its full request, so that no reply is bought twice.

A request is looked up before the model is asked, and a reply is on disk before anyone sees it. A
rejected reply is kept as a record, but never given as an answer. Of equal requests in flight the
first is asked, and the others wait for its reply.
"""

import asyncio
import json
import os
import sqlite3
import threading
import time
import warnings
import weakref
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sleicl_chains.errors import SleiclError
from sleicl_chains.models.askers import Asker
from sleicl_chains.models.plain import as_json, key_of, now
from sleicl_chains.models.turns import PAUSES_S, Reply, Request, Turn, held, settle
from sleicl_chains.models.unsaved import Unsaved

_PATIENCE_S = 30
_LONGEST_WAIT_S = 2 * 3600
"""For a living one's equal request; longer than any time-out of a model here. A dead one's is told by its lock."""
_ROOM = 4096
"""Bytes that are held for a reply before it is asked for, so that a full disk is found in time."""
_SCHEMA = """
CREATE TABLE IF NOT EXISTS calls (
    key TEXT NOT NULL, request TEXT NOT NULL, reply TEXT NOT NULL, at TEXT NOT NULL, rejected TEXT
);
CREATE UNIQUE INDEX IF NOT EXISTS accepted ON calls (key) WHERE rejected IS NULL;
"""
_PENDING = """
CREATE TABLE IF NOT EXISTS pending (key TEXT PRIMARY KEY, owner TEXT NOT NULL, since REAL NOT NULL, room BLOB)
"""
"""Requests that are being asked. Made with the first one: a journal that is only read needs no table."""


class Journal:
    """An append-only SQLite file, for several threads and processes at once.

    Beside it lie `NAME-asking`, a folder with a locked file of each process that asks, and, while the journal cannot be
    written, `NAME-unsaved` with the replies that came meanwhile.

    Raises:
        SleiclError: the file is damaged, cannot be written, or was locked for 30 seconds.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._asker = Asker(path.with_name(f"{path.name}-asking"))
        self._unsaved = Unsaved(path.with_name(f"{path.name}-unsaved"))
        weakref.finalize(self, self._asker.leave)
        with self._explained():
            _create(path)
            self._connection = _open(path)
        self.absorb(patience_s=0)

    def get(self, request: Request) -> Reply | None:
        """Return the accepted reply to this very request, if there is one."""
        return self.find(key_of(as_json(request)))

    def put(self, request: Request, reply: Mapping[str, Any], *, rejected: str | None = None) -> None:
        """Keep a reply; it is safe from `kill -9` on return. The first accepted reply to a request stays.

        Args:
            request: all that decides the reply, without secrets.
            reply: plain data.
            rejected: why the reply must not be used.
        """
        asked = as_json(request)
        self._insert((key_of(asked), asked, as_json(reply), now(), rejected))

    def once(
        self,
        request: Request,
        ask: Callable[[], Reply],
        *,
        check: Callable[[Reply], object] | None = None,
        former: Callable[[], Request] | None = None,
    ) -> Reply:
        """Return the kept reply, else ask for it and keep it; equal requests meanwhile wait and get the same.

        Waiting ends too when the other fails, its process dies, or after two hours: then this one asks. A reply that
        cannot be written after all is returned with a warning, and kept in a file beside the journal.

        Args:
            request: all that decides the reply, without secrets.
            ask: costs what a model call costs. It may use the journal itself.
            check: raises for a reply that must not be used; it is kept as rejected.
            former: the request as an earlier version has written it, whose reply is as good.

        Raises:
            SleiclError: the journal cannot be written; nothing was asked.
        """
        turn = Turn(self, request, check, former)
        settle([turn], lambda _: [ask()])
        return turn.known

    def once_each(self, requests: Sequence[Request], ask: Callable[[list[int]], Sequence[Reply]]) -> list[Reply]:
        """Do what `once` does for several different requests; those not known are asked for together.

        Args:
            requests: no two equal ones.
            ask: takes the places of some requests and returns a reply each.
        """
        turns = [Turn(self, request) for request in requests]
        settle(turns, ask)
        return [turn.known for turn in turns]

    async def aonce(
        self,
        request: Request,
        ask: Callable[[], Awaitable[Reply]],
        *,
        check: Callable[[Reply], object] | None = None,
        former: Callable[[], Request] | None = None,
    ) -> Reply:
        """Do what `once` does without blocking the event loop; a cancelled task loses no reply that has come."""
        turn, in_thread, pause = (
            Turn(self, request, check, former),
            asyncio.get_running_loop().run_in_executor,
            PAUSES_S[0],
        )
        try:
            while not await asyncio.shield(in_thread(None, turn.ready)):
                await asyncio.sleep(pause)
                pause = min(2 * pause, PAUSES_S[1])
            if turn.reply is None:
                with held([turn]):
                    reply = await ask()
                # Begun without an await, and goes on in its thread if this task is cancelled.
                await asyncio.shield(in_thread(None, turn.keep, reply))
        finally:
            if not turn.over:
                await asyncio.shield(in_thread(None, turn.leave))
        return turn.known

    def prune(self, older_than: timedelta) -> int:
        """Forget the calls that are older, give their room back to the disk and return how many they were."""
        end = (datetime.now(UTC) - older_than).isoformat(timespec="seconds")
        with self._lock, self._explained():
            gone = self._connection.execute("DELETE FROM calls WHERE at < ?", (end,)).rowcount
            self._connection.execute("VACUUM")
        return gone

    def reject(self, key: str, reason: str) -> None:
        """Keep an accepted reply as a rejected one from now on, so that its request is asked again."""
        query = "UPDATE calls SET rejected = ? WHERE key = ? AND rejected IS NULL"
        with self._lock, self._explained():
            self._connection.execute(query, (reason, key))

    def __len__(self) -> int:
        with self._lock, self._explained():
            return int(self._connection.execute("SELECT count(*) FROM calls").fetchone()[0])

    def __bool__(self) -> bool:
        """An empty journal is a journal: `if journal` asks whether there is one."""
        return True

    def close(self) -> None:
        """Close the file."""
        self._asker.leave()
        with self._lock:
            self._connection.close()

    def __reduce__(self) -> tuple[type["Journal"], tuple[Path]]:
        """Be pickled and deep-copied as the file's place: a copy opens the file itself."""
        return Journal, (self.path,)

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.ProgrammingError:
            raise  # such as use after close: a mistake in the program
        except (sqlite3.OperationalError, OSError) as problem:
            help = "free it, or go without by --no-journal"
            raise SleiclError(f"{self.path}: the journal cannot be used ({problem}); {help}") from None
        except sqlite3.DatabaseError as problem:
            help = "move the file away, and a new one is begun"
            raise SleiclError(f"{self.path}: the journal is damaged ({problem}); {help}") from None

    def find(self, key: str) -> Reply | None:
        """Return the accepted reply to the request of this key, if there is one."""
        query = "SELECT reply FROM calls WHERE key = ? AND rejected IS NULL"
        with self._lock, self._explained():
            row = self._connection.execute(query, (key,)).fetchone()
        kept = row[0] if row else self._unsaved.reply(key)
        return json.loads(kept) if kept else None

    def _insert(self, row: tuple[Any, ...]) -> bool:
        """Return whether the row is new."""
        with self._lock, self._explained():
            return self._connection.execute("INSERT OR IGNORE INTO calls VALUES (?, ?, ?, ?, ?)", row).rowcount > 0

    def keep(self, key: str, request: str, reply: Reply, rejected: str | None = None) -> Reply:
        """Keep a reply that has been paid for, wherever that can be, and return the one that counts."""
        row = (key, request, as_json(reply), now(), rejected)
        try:
            new = self._insert(row)
        except (SleiclError, sqlite3.ProgrammingError) as problem:  # the second: closed meanwhile
            self._set_aside(row, problem)
            return reply
        return reply if new or rejected else self.find(key) or reply

    def _set_aside(self, row: tuple[Any, ...], problem: Exception) -> None:
        self._asker.leave()  # what is claimed cannot be given back, so it must not pass for somebody's at work
        try:
            kept = f"it is in {self._unsaved.put(row)} until the journal can be written"
        except OSError as second:
            kept = f"nor beside it ({second.strerror}), and would be asked for again"
        warnings.warn(f"A reply could not be kept: {problem}; {kept}", stacklevel=2)

    def absorb(self, *, patience_s: float = _PATIENCE_S) -> None:
        """Move what was set aside into the journal, if it can be written now."""
        if not self._unsaved.folder.exists():
            return
        try:
            self._connection.execute(f"PRAGMA busy_timeout = {round(patience_s * 1000)}")
            for file, row in self._unsaved.rows():
                self._insert(row)
                self._unsaved.remove(file)
        except SleiclError:
            pass  # it is found where it is
        finally:
            self._connection.execute(f"PRAGMA busy_timeout = {_PATIENCE_S * 1000}")

    def claim(self, key: str) -> tuple[str, float] | None:
        """Note that a request is being asked; None where another is at it. Proves that the journal can be written."""
        with self._lock, self._explained():
            self._enter()
            claim = (self._asker.name, time.time())
            row = (key, *claim, _ROOM)
            made = self._connection.execute("INSERT OR IGNORE INTO pending VALUES (?, ?, ?, zeroblob(?))", row).rowcount
            return claim if made or self._take_over(key, claim) else None

    def _enter(self) -> None:
        """Become an asker, once, and clear away what dead ones have left."""
        if self._asker.name:
            return
        self._connection.execute(_PENDING)
        self._asker.enter()
        named = {name for (name,) in self._connection.execute("SELECT DISTINCT owner FROM pending")}
        dead = [name for name in named | self._asker.others() if not self._asker.lives(name)]
        self._connection.executemany("DELETE FROM pending WHERE owner = ?", [(name,) for name in dead])

    def _take_over(self, key: str, claim: tuple[str, float]) -> bool:
        found = self._connection.execute("SELECT owner, since FROM pending WHERE key = ?", (key,)).fetchone()
        if found is None or (abs(claim[1] - found[1]) < _LONGEST_WAIT_S and self._asker.lives(found[0])):
            return False
        change = "UPDATE pending SET owner = ?, since = ? WHERE key = ? AND owner = ? AND since = ?"
        return self._connection.execute(change, (*claim, key, *found)).rowcount > 0

    def give_back(self, key: str, claim: tuple[str, float]) -> None:
        """Let others ask what this one had claimed."""
        if claim[0] != self._asker.name:
            return  # nobody takes it for a living one's
        try:
            with self._lock:
                query = "DELETE FROM pending WHERE key = ? AND owner = ? AND since = ?"
                self._connection.execute(query, (key, *claim))
        except sqlite3.Error:
            self._asker.leave()


def _create(path: Path) -> None:
    """Make an empty file that only its owner can read, before SQLite opens it."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        # Never opens a file that is there: closing it again would drop the locks that SQLite holds
        # on it elsewhere in this process.
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except FileExistsError:
        pass


def _open(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=_PATIENCE_S, isolation_level=None, check_same_thread=False)
    try:
        # A commit in the write-ahead log is in the system's hands when `put` returns, so a killed process
        # loses nothing. NORMAL leaves out the wait for the disk at every commit: a power cut may lose the
        # last replies, but does not damage the file. SQLite gives the files beside the journal its mode.
        _use_write_ahead_log(connection)
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.executescript(_SCHEMA)
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _use_write_ahead_log(connection: sqlite3.Connection) -> None:
    """Switch to the log, waiting here: SQLite itself does not when two processes begin a file together."""
    end = time.monotonic() + _PATIENCE_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as problem:
            if problem.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > end:
                raise
            time.sleep(0.01)
