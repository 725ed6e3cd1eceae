"""The journal: every model call by its full request, so that no reply is bought twice.

A request is looked up before the model is asked, and a reply is on disk before anyone sees it. A
rejected reply is kept as a record, but never given as an answer. Of equal requests in flight the
first is asked, and the others wait for its reply.
"""

import asyncio
import hashlib
import json
import os
import sqlite3
import threading
import time
import warnings
import weakref
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any

from langchain_core.embeddings import Embeddings
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, BaseMessage, messages_from_dict, messages_to_dict
from langchain_core.runnables import Runnable
from langchain_core.runnables.base import RunnableBindingBase
from langchain_core.runnables.config import run_in_executor
from pydantic import BaseModel
from pydantic_core import to_jsonable_python

from sleicl_chains.errors import RejectedReply, SleiclError
from sleicl_chains.models.abilities import is_journalled, own_identity
from sleicl_chains.models.askers import Asker
from sleicl_chains.models.secrets import formerly_without_secrets
from sleicl_chains.models.secrets import without_secrets as without_secrets  # callers have it from here
from sleicl_chains.models.unsaved import Unsaved

Model = Runnable[LanguageModelInput, AIMessage]
"""A chat model, or one with bound arguments."""
Check = Callable[[AIMessage], object]
"""Raises RejectedReply for a reply that must not be used; asked of recalled replies too."""

Reply = dict[str, Any]
"""What a model gave, as JSON data."""
Request = Mapping[str, Any]

_PATIENCE_S = 30
_LONGEST_WAIT_S = 900
"""For another's equal request; longer than any time-out of a model here."""
_PAUSES_S = (0.005, 0.1)
"""Between two looks for the reply that is waited for: the first, and the longest."""
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
        self._absorb(patience_s=0)

    def get(self, request: Request) -> Reply | None:
        """Return the accepted reply to this very request, if there is one."""
        return self._find(_key(_json(request)))

    def put(self, request: Request, reply: Mapping[str, Any], *, rejected: str | None = None) -> None:
        """Keep a reply; it is safe from `kill -9` on return. The first accepted reply to a request stays.

        Args:
            request: all that decides the reply, without secrets.
            reply: plain data.
            rejected: why the reply must not be used.
        """
        asked = _json(request)
        self._insert((_key(asked), asked, _json(reply), _now(), rejected))

    def once(
        self,
        request: Request,
        ask: Callable[[], Reply],
        *,
        check: Callable[[Reply], object] | None = None,
        former: Callable[[], Request] | None = None,
    ) -> Reply:
        """Return the kept reply, else ask for it and keep it; equal requests meanwhile wait and get the same.

        Waiting ends too when the other fails, its process dies, or after 15 minutes: then this one asks. A reply that
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
        _settle([turn], lambda _: [ask()])
        return turn.known

    def once_each(self, requests: Sequence[Request], ask: Callable[[list[int]], Sequence[Reply]]) -> list[Reply]:
        """Do what `once` does for several different requests; those not known are asked for together.

        Args:
            requests: no two equal ones.
            ask: takes the places of some requests and returns a reply each.
        """
        turns = [Turn(self, request) for request in requests]
        _settle(turns, ask)
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
            _PAUSES_S[0],
        )
        try:
            while not await asyncio.shield(in_thread(None, turn.ready)):
                await asyncio.sleep(pause)
                pause = min(2 * pause, _PAUSES_S[1])
            if turn.reply is None:
                with _held([turn]):
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

    # -------------------------------------------------------------- rows

    def _find(self, key: str) -> Reply | None:
        query = "SELECT reply FROM calls WHERE key = ? AND rejected IS NULL"
        with self._lock, self._explained():
            row = self._connection.execute(query, (key,)).fetchone()
        kept = row[0] if row else self._unsaved.reply(key)
        return json.loads(kept) if kept else None

    def _insert(self, row: tuple[Any, ...]) -> bool:
        """Return whether the row is new."""
        with self._lock, self._explained():
            return self._connection.execute("INSERT OR IGNORE INTO calls VALUES (?, ?, ?, ?, ?)", row).rowcount > 0

    def _keep(self, key: str, request: str, reply: Reply, rejected: str | None = None) -> Reply:
        """Keep a reply that has been paid for, wherever that can be, and return the one that counts."""
        row = (key, request, _json(reply), _now(), rejected)
        try:
            new = self._insert(row)
        except (SleiclError, sqlite3.ProgrammingError) as problem:  # the second: closed meanwhile
            self._set_aside(row, problem)
            return reply
        return reply if new or rejected else self._find(key) or reply

    def _set_aside(self, row: tuple[Any, ...], problem: Exception) -> None:
        self._asker.leave()  # what is claimed cannot be given back, so it must not pass for somebody's at work
        try:
            kept = f"it is in {self._unsaved.put(row)} until the journal can be written"
        except OSError as second:
            kept = f"nor beside it ({second.strerror}), and would be asked for again"
        warnings.warn(f"A reply could not be kept: {problem}; {kept}", stacklevel=2)

    def _absorb(self, *, patience_s: float = _PATIENCE_S) -> None:
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

    # -------------------------------------------------------------- claims

    def _claim(self, key: str) -> tuple[str, float] | None:
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

    def _give_back(self, key: str, claim: tuple[str, float]) -> None:
        if claim[0] != self._asker.name:
            return  # nobody takes it for a living one's
        try:
            with self._lock:
                query = "DELETE FROM pending WHERE key = ? AND owner = ? AND since = ?"
                self._connection.execute(query, (key, *claim))
        except sqlite3.Error:
            self._asker.leave()


_HELD: ContextVar[frozenset[tuple[str, str]]] = ContextVar("_HELD", default=frozenset())
"""The journals and keys of the requests that are being asked around here: waiting for one would never end."""


class Turn:
    """One request's place in the queue of equal ones."""

    def __init__(
        self,
        journal: Journal,
        request: Request,
        check: Callable[[Reply], object] | None = None,
        former: Callable[[], Request] | None = None,
    ) -> None:
        self.journal, self.check = journal, check
        self.request = _json(request)
        self.key = _key(self.request)
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
                self._claimed = self.journal._claim(self.key)
                if self._claimed is None:
                    return False
                self.journal._absorb()
                self._found()  # another may have answered between the look and the claim
            return True

    def _found(self) -> bool:
        self.reply = self.journal._find(self.key)
        if self.reply is None and self._former:
            before, self._former = _key(_json(self._former())), None
            self.reply = self.journal._find(before) if before != self.key else None
        if self.reply is not None and self._is_good(self.reply):
            self.leave()
        return self.over

    def _is_good(self, reply: Reply) -> bool:
        """Say whether a kept reply passes the check; one that was accepted before there was this check is rejected."""
        try:
            if self.check:
                self.check(reply)
        except RejectedReply as problem:
            self.journal.reject(self.key, str(problem))
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
                if isinstance(problem, RejectedReply):
                    problem.usage = used(_message(reply))
                self.journal._keep(self.key, self.request, reply, rejected=str(problem))
                raise
            else:
                self.reply = self.journal._keep(self.key, self.request, reply)
            finally:
                self.leave()

    def leave(self) -> None:
        """Let the next one ask, if nothing is kept."""
        with self._lock:
            claimed, self._claimed, self.over = self._claimed, None, True
            if claimed:
                self.journal._give_back(self.key, claimed)


@contextmanager
def _held(turns: Sequence[Turn]) -> Iterator[None]:
    before = _HELD.set(_HELD.get() | {turn.mark for turn in turns})
    try:
        yield
    finally:
        _HELD.reset(before)


def _settle(turns: Sequence[Turn], ask: Callable[[list[int]], Sequence[Reply]]) -> None:
    """Ask for what is nobody's, together, and wait for the rest; nothing is held while waiting."""
    waiting, pause = list(range(len(turns))), _PAUSES_S[0]
    try:
        while waiting:
            ready = [at for at in waiting if turns[at].ready()]
            if mine := [at for at in ready if turns[at].reply is None]:
                with _held([turns[at] for at in mine]):
                    replies = ask(mine)
                for at, reply in zip(mine, replies, strict=True):
                    turns[at].keep(reply)
            waiting = [at for at in waiting if at not in set(ready)]
            if waiting and not ready:
                time.sleep(pause)
                pause = min(2 * pause, _PAUSES_S[1])
    finally:
        for turn in turns:
            turn.leave()


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


def _json(value: object) -> str:
    return json.dumps(plain(value), sort_keys=True, separators=(",", ":"))


def _key(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def plain(value: object) -> Any:
    """Return `value` as JSON data: pydantic objects as dicts, what is no data as its class's name."""
    return to_jsonable_python(value, bytes_mode="base64", inf_nan_mode="constants", fallback=_class_name)


def _class_name(value: object) -> str:
    return value.__qualname__ if isinstance(value, type) else type(value).__qualname__


# ------------------------------------------------------------------ requests


def request_of(model: Model, messages: Sequence[BaseMessage], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return all that decides a reply as JSON data, without secrets and without ids of runs."""
    return {"model": identity(model), "messages": _sent(messages), "options": without_secrets(plain(options))}


def _former_request(model: Model, messages: Sequence[BaseMessage], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the request that versions up to 0.1.0 have written."""
    bared = formerly_without_secrets(plain(options))
    return {"model": former_identity(model), "messages": _sent(messages), "options": bared}


def _sent(messages: Sequence[BaseMessage]) -> list[dict[str, Any]]:
    return [_without_run(message) for message in plain(messages_to_dict(messages))]


def _without_run(message: dict[str, Any]) -> dict[str, Any]:
    """Drop what is not sent to a model; empty values too, since new versions of LangChain add some."""
    unsent = ("id", "response_metadata", "usage_metadata")
    kept = {key: value for key, value in message["data"].items() if key not in unsent and value}
    return {"type": message["type"], "data": kept}


def identity(model: Model) -> dict[str, Any]:
    """Return what tells this model and its settings from others, as JSON data without secrets.

    A model may say so itself by an attribute `identity`. Otherwise it is told by its class, server
    and public fields; `_identifying_params` alone is the same for all models of `ChatOllama`.

    Raises:
        TypeError: `model` is neither a chat model nor one with bound arguments.
    """
    return _told(model, without_secrets, without_secrets)


def former_identity(model: Model) -> dict[str, Any]:
    """Return the identity that versions up to 0.1.0 have written into journals."""
    return _told(model, formerly_without_secrets, lambda own: own)


def _told(model: Model, bared: Callable[[Any], Any], own_bared: Callable[[Any], Any]) -> dict[str, Any]:
    if isinstance(model, RunnableBindingBase):  # before `identity`, which it would pass through
        return {"bound": _told(model.bound, bared, own_bared), "kwargs": bared(plain(model.kwargs))}
    if (own := own_identity(model)) is not None:
        return dict(own_bared(plain(own)))
    if not isinstance(model, BaseChatModel):
        raise TypeError(f"expected a chat model, found {type(model).__qualname__}")
    params = {} if model.is_lc_serializable() else model._identifying_params
    described = {"class": type(model).__name__, "server": _server(model), "params": params, **_fields(model)}
    return dict(bared({key: value for key, value in plain(described).items() if value not in _UNSET}))


_UNSET: tuple[object, ...] = (None, "", [], {})

_UNHEARD = frozenset(
    "async_client async_client_kwargs cache callbacks client client_kwargs custom_get_token_ids disable_streaming "
    "http_async_client http_client http_socket_options include_response_headers max_retries metadata name profile "
    "rate_limiter request_timeout root_async_client root_client sleep stream_chunk_timeout stream_usage streaming "
    "sync_client_kwargs tags timeout validate_model_on_init verbose "
    "i".split()  # how far LangChain's FakeListChatModel has got
)
"""Fields of LangChain's models that the model behind them never hears of."""


def embedder_identity(embeddings: Embeddings) -> dict[str, Any]:
    """Return what tells an embedder and its settings from others, as `identity` does for chat models."""
    own = getattr(embeddings, "identity", None)
    if isinstance(own, Mapping):
        return dict(without_secrets(plain(own)))
    fields = _fields(embeddings) if isinstance(embeddings, BaseModel) else getattr(embeddings, "__dict__", {})
    # Neither decides a vector: how many texts go into a request, and how their tokens are counted.
    told = {name: value for name, value in fields.items() if not name.startswith("_") and name not in _UNHEARD_TEXTS}
    described = {"class": type(embeddings).__qualname__, "server": _server(embeddings), **plain(told)}
    return dict(without_secrets({key: value for key, value in described.items() if value not in _UNSET}))


_UNHEARD_TEXTS = frozenset("chunk_size show_progress_bar show_progress retry_min_seconds retry_max_seconds".split())


def _fields(model: BaseModel) -> dict[str, Any]:
    """Return the settings, without flags left off: a new version may add some and must not buy all again."""
    kept = {}
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        left_off = value is False and field.default is False
        if name not in _UNHEARD and not left_off and not isinstance(value, Iterator):
            kept[name] = value
    return kept


def _server(model: object) -> str | None:
    """Return the address in use, which may come from the environment and then is in no field."""
    for place in (
        "root_client.base_url",
        "_client._client.base_url",
        "client._client.base_url",
    ):  # OpenAI, Ollama, embeddings
        try:
            return str(attrgetter(place)(model))
        except AttributeError:
            continue
    return None


# ------------------------------------------------------------------ asking


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
    request, former = request_of(model, messages, options), partial(_former_request, model, messages, options)
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
    former = partial(_former_request, model, messages, options)
    return _message(await journal.aonce(request, asks, check=_check_of(check), former=former))


def used(message: AIMessage) -> dict[str, int]:
    """Return the tokens of a call as `Answer.usage` has them; empty where the model reports none."""
    found = message.usage_metadata
    return {"prompt_tokens": found["input_tokens"], "reply_tokens": found["output_tokens"]} if found else {}


def _timed(ask: Callable[[], AIMessage]) -> Reply:
    started = time.perf_counter()
    return _reply(ask(), time.perf_counter() - started)


def _reply(message: AIMessage, seconds: float) -> Reply:
    asked_at = message.response_metadata.get("asked_at") or _now()
    kept: Reply = plain({"message": messages_to_dict([message])[0], "seconds": seconds, "asked_at": asked_at})
    return kept


def _check_of(check: Check | None) -> Callable[[Reply], object] | None:
    return (lambda reply: check(_message(reply))) if check else None


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
