"""The journal: every model call by its full request, so that no reply is bought twice.

A request is looked up before the model is asked, and a reply is on disk before anyone sees it. A
rejected reply is kept as a record, but never given as an answer.
"""

import hashlib
import json
import os
import re
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from operator import attrgetter
from pathlib import Path
from typing import Any

from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, BaseMessage, messages_from_dict, messages_to_dict
from langchain_core.runnables import Runnable
from langchain_core.runnables.base import RunnableBindingBase
from langchain_core.runnables.config import run_in_executor
from pydantic_core import to_jsonable_python

from sleicl_chains.errors import RejectedReply, SleiclError

Model = Runnable[LanguageModelInput, AIMessage]
"""A chat model, or one with bound arguments."""
Check = Callable[[AIMessage], object]
"""Raises RejectedReply for a reply that must not be used."""

_PATIENCE_S = 30
_SCHEMA = """
CREATE TABLE IF NOT EXISTS calls (
    key TEXT NOT NULL, request TEXT NOT NULL, reply TEXT NOT NULL, at TEXT NOT NULL, rejected TEXT
);
CREATE UNIQUE INDEX IF NOT EXISTS accepted ON calls (key) WHERE rejected IS NULL;
"""


class Journal:
    """An append-only SQLite file, for several threads and processes at once.

    Raises:
        SleiclError: the file is damaged, cannot be written, or was locked for 30 seconds.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        with self._explained():
            _create(path)
            self._connection = _open(path)

    def get(self, request: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return the accepted reply to this very request, if there is one."""
        query = "SELECT reply FROM calls WHERE key = ? AND rejected IS NULL"
        with self._lock, self._explained():
            row = self._connection.execute(query, (_key(_json(request)),)).fetchone()
        return json.loads(row[0]) if row else None

    def put(self, request: Mapping[str, Any], reply: Mapping[str, Any], *, rejected: str | None = None) -> None:
        """Keep a reply; it is safe from `kill -9` on return. The first accepted reply to a request stays.

        Args:
            request: all that decides the reply, without secrets.
            reply: plain data.
            rejected: why the reply must not be used.
        """
        asked = _json(request)
        row = (_key(asked), asked, _json(reply), _now(), rejected)
        with self._lock, self._explained():
            self._connection.execute("INSERT OR IGNORE INTO calls VALUES (?, ?, ?, ?, ?)", row)

    def __len__(self) -> int:
        with self._lock, self._explained():
            return int(self._connection.execute("SELECT count(*) FROM calls").fetchone()[0])

    def __bool__(self) -> bool:
        """An empty journal is a journal: `if journal` asks whether there is one."""
        return True

    def close(self) -> None:
        """Close the file."""
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
            raise SleiclError(f"{self.path}: the journal cannot be used ({problem})") from None
        except sqlite3.DatabaseError as problem:
            help = "move the file away, and a new one is begun"
            raise SleiclError(f"{self.path}: the journal is damaged ({problem}); {help}") from None


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
    return {
        "model": identity(model),
        "messages": [_without_run(message) for message in plain(messages_to_dict(messages))],
        "options": without_secrets(plain(options)),
    }


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
    if isinstance(model, RunnableBindingBase):  # before `identity`, which it would pass through
        return {"bound": identity(model.bound), "kwargs": without_secrets(plain(model.kwargs))}
    own = getattr(model, "identity", None)
    if isinstance(own, Mapping):
        return dict(plain(own))
    if not isinstance(model, BaseChatModel):
        raise TypeError(f"expected a chat model, found {type(model).__qualname__}")
    params = {} if model.is_lc_serializable() else model._identifying_params
    described = {"class": type(model).__name__, "server": _server(model), "params": params, **_fields(model)}
    return dict(without_secrets({key: value for key, value in plain(described).items() if value not in _UNSET}))


_UNSET: tuple[object, ...] = (None, "", [], {})

_UNHEARD = frozenset(
    "async_client async_client_kwargs cache callbacks client client_kwargs custom_get_token_ids disable_streaming "
    "http_async_client http_client http_socket_options include_response_headers max_retries metadata name profile "
    "rate_limiter request_timeout root_async_client root_client sleep stream_chunk_timeout stream_usage streaming "
    "sync_client_kwargs tags timeout validate_model_on_init verbose "
    "i".split()  # how far LangChain's FakeListChatModel has got
)
"""Fields of LangChain's models that the model behind them never hears of."""


def _fields(model: BaseChatModel) -> dict[str, Any]:
    """Return the settings, without flags left off: a new version may add some and must not buy all again."""
    kept = {}
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        left_off = value is False and field.default is False
        if name not in _UNHEARD and not left_off and not isinstance(value, Iterator):
            kept[name] = value
    return kept


def _server(model: BaseChatModel) -> str | None:
    """Return the address in use, which may come from the environment and then is in no field."""
    for place in ("root_client.base_url", "_client._client.base_url"):  # ChatOpenAI, ChatOllama
        try:
            return str(attrgetter(place)(model))
        except AttributeError:
            continue
    return None


_SECRET = re.compile(r"(key|token|password|passwd|secret|credential|authorization|cookie)s?$", re.IGNORECASE)
_USER_IN_URL = re.compile(r"(?<=://)[^/@\s]+@")


def without_secrets(value: Any) -> Any:
    """Drop headers and strings of a telling name from JSON data, and user names from addresses."""
    if isinstance(value, dict):
        kept = {key: item for key, item in value.items() if not _is_secret(key, item)}
        return {key: without_secrets(item) for key, item in kept.items()}
    if isinstance(value, list):
        return [without_secrets(item) for item in value]
    return _USER_IN_URL.sub("", value) if isinstance(value, str) else value


def _is_secret(key: str, value: object) -> bool:
    return key.lower().endswith("headers") or (isinstance(value, str) and bool(_SECRET.search(key)))


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
    call = _call(model, messages, journal, check, options)
    if recalled := call.recall():
        return recalled
    started = time.perf_counter()
    return call.keep(model.invoke(messages, **options), time.perf_counter() - started)


async def aask(
    model: Model,
    messages: Sequence[BaseMessage],
    journal: Journal | None,
    *,
    check: Check | None = None,
    **options: Any,
) -> AIMessage:
    """Do the same as `ask` without blocking while the model works."""
    # In a thread: a model may have to ask its server who it is.
    call = await run_in_executor(None, _call, model, messages, journal, check, options)
    if recalled := call.recall():
        return recalled
    started = time.perf_counter()
    # There is no await between reply and journal, so that a cancelled task cannot lose a paid reply.
    return call.keep(await model.ainvoke(messages, **options), time.perf_counter() - started)


@dataclass(frozen=True)
class _Call:
    request: Mapping[str, Any]
    journal: Journal | None
    check: Check | None

    def recall(self) -> AIMessage | None:
        kept = self.journal.get(self.request) if self.journal else None
        return _message(kept) if kept else None

    def keep(self, message: AIMessage, seconds: float) -> AIMessage:
        asked_at = message.response_metadata.get("asked_at") or _now()
        reply = plain({"message": messages_to_dict([message])[0], "seconds": seconds, "asked_at": asked_at})
        try:
            if self.check:
                self.check(message)
        except Exception as problem:
            if isinstance(problem, RejectedReply):
                problem.usage = used(message)
            if self.journal:
                self.journal.put(self.request, reply, rejected=str(problem))
            raise
        if self.journal:
            self.journal.put(self.request, reply)
            reply = self.journal.get(self.request) or reply  # another process may have been first
        return _message(reply)


def used(message: AIMessage) -> dict[str, int]:
    """Return the tokens of a call as `Answer.usage` has them; empty where the model reports none."""
    found = message.usage_metadata
    return {"prompt_tokens": found["input_tokens"], "reply_tokens": found["output_tokens"]} if found else {}


def _call(
    model: Model, messages: Sequence[BaseMessage], journal: Journal | None, check: Check | None, options: dict[str, Any]
) -> _Call:
    if journal is None or not getattr(model, "journalled", True):
        return _Call({}, None, check)
    return _Call(request_of(model, messages, options), journal, check)


def _message(reply: Mapping[str, Any]) -> AIMessage:
    message = messages_from_dict([reply["message"]])[0]
    assert isinstance(message, AIMessage)
    message.response_metadata |= {"seconds": reply["seconds"], "asked_at": reply["asked_at"]}
    return message
