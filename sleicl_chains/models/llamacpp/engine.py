"""The llama.cpp engine of the xllamacpp wheel, running inside this process.

It is a web server on a loopback port that the system chooses, closed to everybody without this
process's key.

Flash attention is off and the attention cache holds 32-bit numbers. Measured on SmolLM2-135M, this
makes scores equal to the last digit whatever the cache held before (with the engine's defaults they
move by up to 0.06), at no loss of speed; so a resumed run gives what an uninterrupted one gives.
"""

import asyncio
import atexit
import functools
import json
import os
import secrets
import signal
import threading
from collections.abc import AsyncGenerator, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import httpx
from pydantic_core import from_json

from sleicl_chains.errors import ModelError, ModelNotFound, PromptTooLong
from sleicl_chains.models.digests import FileState
from sleicl_chains.models.llamacpp.fronts import Fronts, Turn
from sleicl_chains.models.llamacpp.literals import marked, may_hold_control, parts, without_marks
from sleicl_chains.models.weights import fetched_again

PROBE_TOKENS = 512
"""Logits that a state is read by. On TREC more did not help beyond noise (benchmarks/LOG.md)."""


class Engine:
    """One llama.cpp server with one model, shared by all `EmbeddedModel`s of the same settings."""

    def __init__(self, path: Path, *, n_ctx: int, threads: int) -> None:
        import xllamacpp

        params = xllamacpp.CommonParams()
        params.model.path = str(path)
        params.n_ctx = n_ctx
        params.n_parallel = 1  # each slot would evaluate the shared prefix again
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
        params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
        params.swa_full = True  # otherwise sliding-window models forget the shared prefix
        params.cache_ram_mib = 512  # the default may grow to 8 GiB
        params.hostnames = ["127.0.0.1"]
        params.port = 0
        params.ui = False
        params.verbosity = -1
        self._key = secrets.token_urlsafe(16)
        params.api_keys = [self._key]
        with _uninterrupted():
            try:
                self._server = xllamacpp.Server(params)
            except Exception as problem:
                what = f"the engine could not open it as a GGUF model ({problem})"
                raise ModelNotFound(f"{path}: {what}; {fetched_again(path)}") from None
            self._client = httpx.Client(**self._connection())
            self._async_clients: WeakKeyDictionary[Any, httpx.AsyncClient] = WeakKeyDictionary()
            atexit.register(self.close)
            self.tokens("", special=False)  # answers once its loop runs; ended before that, it would hang
        self._check_numbers(path)
        self._spelled: dict[tuple[str, tuple[str, ...]], tuple[int, list[list[int]]]] = {}
        self._as_text = functools.lru_cache(1000)(self._marked)  # a grimoire comes with every question
        if hasattr(os, "register_at_fork"):  # not on Windows
            os.register_at_fork(after_in_child=self._after_fork)

    def _connection(self) -> dict[str, Any]:
        return {
            "base_url": self._server.listening_address,
            "headers": {"Authorization": f"Bearer {self._key}"},
            "timeout": httpx.Timeout(600.0, connect=10.0),
            "trust_env": False,  # a proxy has no business on loopback
        }

    @property
    def _async_client(self) -> httpx.AsyncClient:
        """The client of the running event loop; it keeps no connection, so that none is left open where a loop ends."""
        loop = asyncio.get_running_loop()
        if loop not in self._async_clients:
            limits = httpx.Limits(max_keepalive_connections=0)
            self._async_clients[loop] = httpx.AsyncClient(**self._connection(), limits=limits)
        return self._async_clients[loop]

    def _check_numbers(self, path: Path) -> None:
        """Refuse weights whose tensors are damaged: probabilities that are no numbers, or are all alike; one token."""
        whole = self.tokens("a", special=False)[-1]  # drawn; with a piece of a character nothing would be told
        body = {"prompt": "a", "n_predict": 1, "n_probs": 8, "temperature": 0.0, "logit_bias": [[whole, 100.0]]}
        try:
            listed = self.post("/completion", body)["completion_probabilities"][0]["top_logprobs"]
        except ModelError:
            self.close()
            raise
        if len({entry["logprob"] for entry in listed} - {None}) < 2:
            self.close()
            raise ModelNotFound(f"{path}: it gives no probabilities of words; {fetched_again(path)}")

    def close(self) -> None:
        """Close the connections, then the server; the other order can hang."""
        with _engines_lock:
            for key in [key for key, engine in _engines.items() if engine is self]:
                del _engines[key]
        self._client.close()
        self._server = None

    def _after_fork(self) -> None:
        """In a child by `multiprocessing`: use the parent's server through connections of its own.

        The server's destructor must never run here; it would wait for threads that were not copied.
        """
        import ctypes

        if self._server is not None:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._server))
            atexit.unregister(self.close)
            self._client = httpx.Client(**self._connection())
            self._async_clients = WeakKeyDictionary()

    def post(self, route: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Send one request.

        Raises:
            PromptTooLong: the prompt does not fit the context.
            ModelError: the engine refused or broke.
        """
        return self._sent("POST", route, body)

    def _get(self, route: str) -> dict[str, Any]:
        return self._sent("GET", route)

    def _sent(self, method: str, route: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        try:
            try:
                reply = self._client.request(method, route, json=body)
            except (httpx.RemoteProtocolError, httpx.ReadError):  # it drops idle connections
                reply = self._client.request(method, route, json=body)  # a second time is a real failure
        except httpx.HTTPError as problem:
            raise _broken(problem) from None
        return _read(reply)

    async def apost(self, route: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Do the same as `post` without blocking; when it is cancelled, the engine stops within a second."""
        try:
            reply = await self._async_client.post(route, json=body)
        except httpx.HTTPError as problem:
            raise _broken(problem) from None
        return _read(reply)

    def stream(self, route: str, body: Mapping[str, Any]) -> Generator[dict[str, Any], None, None]:
        """Send one request and yield its events; the engine stops where no more are taken. Raises as `post` does."""
        try:
            with self._client.stream("POST", route, json={**body, "stream": True}) as reply:
                if reply.status_code != 200:
                    reply.read()
                    _check_status(reply)
                yield from filter(None, map(_event, reply.iter_lines()))
        except httpx.HTTPError as problem:
            raise _broken(problem) from None

    async def astream(self, route: str, body: Mapping[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        """Do the same as `stream` without blocking."""
        try:
            async with self._async_client.stream("POST", route, json={**body, "stream": True}) as reply:
                if reply.status_code != 200:
                    await reply.aread()
                    _check_status(reply)
                async for line in reply.aiter_lines():
                    if event := _event(line):
                        yield event
        except httpx.HTTPError as problem:
            raise _broken(problem) from None

    @functools.cached_property
    def fronts(self) -> Fronts:
        """Writes chats down by the model's own template."""
        return Fronts(self._written)

    def _written(self, turns: Sequence[Turn]) -> str:
        text: str = self.post("/apply-template", {"messages": turns})["prompt"]
        return text

    def spell(self, tail: str, labels: tuple[str, ...]) -> tuple[int, list[list[int]]]:
        """Return how many of the last tokens of `tail` change before a label, and the labels' tokens.

        A label follows after one space, unless the tail ends in white space.
        """
        if len(self._spelled) > 100:  # tails of free text would pile up
            self._spelled.clear()
        found = self._spelled.get((tail, labels))
        if found is None:
            gap = "" if not tail or tail[-1].isspace() else " "
            before = self.tokens(tail, special=False)
            after = [self.tokens(tail + gap + label, special=False) for label in labels]
            shared = min(_shared(before, ids) for ids in after)
            found = len(before) - shared, [ids[shared:] for ids in after]
            self._spelled[tail, labels] = found
        return found

    def prompt_tokens(self, prompt: str) -> list[int]:
        """Return the token ids of a whole rendered prompt, with the first token that some models want before it."""
        ids: list[int] = []
        for at, (piece, special) in enumerate(parts(prompt)):
            body = {"content": piece, "add_special": at == 0, "parse_special": special}
            ids += self.post("/tokenize", body)["tokens"]
        return ids

    def as_text(self, text: str) -> str:
        """Return a text with what the tokenizer would take for control tokens marked as text, see `literals`."""
        return self._as_text(text) if may_hold_control(text) else text

    def _marked(self, text: str) -> str:
        """Ask the tokenizer twice; where both answers are the same, the text holds no control token."""
        text = without_marks(text)
        read, plain = (self.tokens(text, special=special) for special in (True, False))
        words = {self._text(token) for token in set(read) - set(plain)} if read != plain else set()
        return marked(text, {word for word in words if word and self._is_control(word)})

    def _is_control(self, word: str) -> bool:
        read = self.tokens(word, special=True)
        return len(read) == 1 and read != self.tokens(word, special=False)

    @functools.cached_property
    def probe_tokens(self) -> list[int]:
        """The tokens whose logits stand for the model's state: a fixed draw, the same for one vocabulary everywhere.

        Only tokens that are whole text: the engine keeps back a reply that ends within a character.
        """
        import random

        size = self._get("/v1/models")["data"][0]["meta"]["n_vocab"]
        order = list(range(size))
        random.Random(0).shuffle(order)
        return sorted(islice(filter(self._is_text, order), PROBE_TOKENS))

    def _is_text(self, token: int) -> bool:
        text = self._text(token)
        return bool(text.strip()) and "\ufffd" not in text and not text.startswith("<")

    def _text(self, token: int) -> str:
        text: str = self.post("/detokenize", {"tokens": [token]})["content"]
        return text

    def tokens(self, text: str, *, special: bool) -> list[int]:
        """Return the token ids of a piece of text; `special` reads control tokens in it as such."""
        body = {"content": text, "add_special": False, "parse_special": special}
        ids: list[int] = self.post("/tokenize", body)["tokens"]
        return ids


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Hold Ctrl-C back until the block is done: a server that is ended while it starts waits for itself for ever."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    pressed: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: pressed.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before or signal.SIG_DFL)
    if pressed:
        raise KeyboardInterrupt


def _event(line: str) -> dict[str, Any] | None:
    """Return what a line of a stream tells; None where it is no event."""
    if not line.startswith("data: ") or line == "data: [DONE]":
        return None
    event: dict[str, Any] = json.loads(line.removeprefix("data: "))
    return event


def _read(reply: httpx.Response) -> dict[str, Any]:
    _check_status(reply)
    result: dict[str, Any] = from_json(reply.content)  # twice as fast as json with hundreds of probabilities
    return result


def _broken(problem: httpx.HTTPError) -> ModelError:
    what = str(problem) or type(problem).__name__
    return ModelError(f"The embedded engine did not answer ({what}); the prompt may be too long for this machine")


def _check_status(reply: httpx.Response) -> None:
    if reply.status_code == 200:
        return
    try:
        error = reply.json()["error"]
    except (ValueError, KeyError):
        error = {"message": reply.text[:200]}
    if error.get("type") == "exceed_context_size_error":
        found, room = error.get("n_prompt_tokens"), error.get("n_ctx")
        raise PromptTooLong(too_long(found, room))
    raise ModelError(f"The embedded engine answered {reply.status_code}: {error.get('message')}")


def too_long(found: int | None, room: int | None) -> str:
    """Say that a prompt does not fit, and what can be done."""
    return (
        f"The prompt has {found} tokens; the context holds {room}. "
        "Use fewer or shorter examples, the simple grimoire, or a larger context (--option n_ctx=8192)"
    )


_engines: dict[tuple[FileState, int, int], Engine] = {}
_engines_lock = threading.RLock()


def engine_for(path: Path, file: FileState, *, n_ctx: int, threads: int) -> Engine:
    """Return this process's engine for a file and settings, started at the first call.

    Args:
        path: where the file lies.
        file: its state. An engine that runs goes on with the file that it opened, whatever is put in its place.
        n_ctx: context in tokens.
        threads: number of threads.

    Raises:
        ModelNotFound: it is no model.
        ModelError: another file lies there by now.
    """
    with _engines_lock:
        key = (file, n_ctx, threads)
        if key not in _engines:
            check_unchanged(path, file)
            engine = Engine(path, n_ctx=n_ctx, threads=threads)
            try:
                check_unchanged(path, file)
            except ModelError:
                engine.close()
                raise
            _engines[key] = engine
        return _engines[key]


def check_unchanged(path: Path, file: FileState) -> None:
    """Raise ModelError where `path` is no longer the file that it was."""
    if FileState.of(path) != file:
        raise ModelError(f"{path}: the file was replaced or changed since this model was opened; open the model again")


def _shared(one: Sequence[int], other: Sequence[int]) -> int:
    """Return the length of the common beginning."""
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
