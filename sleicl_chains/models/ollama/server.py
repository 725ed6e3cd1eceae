"""One Ollama server over HTTP: requests in, plain JSON out, every failure typed; sync and async.

The `ollama` package is not used for this: it has no `truncate`, `shift` and rendering requests, drops
the bytes of tokens, waits for ever by default, and its errors differ by the path they take.
"""

import asyncio
import functools
import itertools
import ssl
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, aclosing
from typing import Any
from weakref import WeakKeyDictionary

import httpx
from tenacity import AsyncRetrying, Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from sleicl_chains.errors import CutReply, SleiclError
from sleicl_chains.models.ollama.address import Address
from sleicl_chains.models.ollama.arriving import Lines, ended_after, until, whole
from sleicl_chains.models.ollama.failures import decoded, explained, failure, model_missing, retryable
from sleicl_chains.models.ollama.versions import Version, numbers

_FRESH_S = 10.0
"""How long an answer about the server's models is believed; one may be pulled again under its name."""
_CONNECT_S = 5.0


class Server:
    """A server and how patiently it is asked. Safe for any number of threads and event loops.

    Connections are not kept: on loopback a new one costs a fraction of a millisecond, and none is
    left open in an event loop that ends.

    Args:
        address: where it is.
        timeout_s: longest silence to bear, in seconds; covers queueing, loading and reading the prompt. A reply that
            is no stream must end within it, too.
        deadline_s: how long a stream may last in all, in seconds.
        attempts: how often a request is sent in all, while `failures.retryable` says that it may succeed.
        http: more settings of the httpx clients, such as `headers` or `verify`.
    """

    def __init__(
        self, address: Address, *, timeout_s: float = 600.0, deadline_s: float = 3600.0, attempts: int = 3,
        http: Mapping[str, Any] | None = None,
    ) -> None:  # fmt: skip
        self.address, self.timeout_s, self.deadline_s, self.attempts = address, timeout_s, deadline_s, attempts
        self._settings: dict[str, Any] = {
            "base_url": address.url,
            "timeout": httpx.Timeout(timeout_s, connect=_CONNECT_S, pool=None),
            "limits": httpx.Limits(max_keepalive_connections=0),
            "trust_env": not address.is_local,  # a proxy has no business on loopback
            **(http or {}),
            "headers": {**address.headers, **(http or {}).get("headers", {})},
        }
        self._async_clients: WeakKeyDictionary[Any, httpx.AsyncClient] = WeakKeyDictionary()
        self._models: tuple[float, list[dict[str, Any]]] | None = None
        self._version: Version | None = None

    @property
    def url(self) -> str:
        """The address to print."""
        return self.address.url

    def get(self, route: str) -> dict[str, Any]:
        """Ask for `route`. Raises a SleiclError, see `failures`."""
        reply: dict[str, Any] = self._retry(self._once, "GET", route, None)
        return reply

    def post(self, route: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Send one request and return the whole reply. Raises a SleiclError, see `failures`."""
        reply: dict[str, Any] = self._retry(self._once, "POST", route, body)
        return reply

    def stream(self, route: str, body: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """Send one request and yield the reply's parts; sent again only while no part has come."""
        yield from self._retry(self._begun, route, body)

    def _begun(self, route: str, body: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """Open a stream and wait for its first part, so that what fails before can be tried again."""
        parts = self._parts(route, body)
        first = next(parts, None)
        if first is None:
            raise _nothing_came(self.url)
        return itertools.chain([first], parts)

    async def astream(self, route: str, body: Mapping[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        """Do the same as `stream` without blocking."""
        async for attempt in AsyncRetrying(**self.retry_policy()):
            with attempt:
                parts = self._aparts(route, body)
                try:
                    first = await anext(parts)
                except StopAsyncIteration:
                    raise _nothing_came(self.url) from None
        async with aclosing(parts):
            yield first
            async for part in parts:
                yield part

    def retry_policy(self, worth: Callable[[BaseException], bool] = retryable) -> dict[str, Any]:
        """Return how tenacity is to try again what fails in a way that is `worth` it."""
        return {
            "retry": retry_if_exception(worth),
            "stop": stop_after_attempt(self.attempts),
            "wait": wait_random_exponential(multiplier=0.3, max=5),
            "reraise": True,
        }

    def _retry(self, send: Any, *arguments: Any) -> Any:
        return Retrying(**self.retry_policy())(send, *arguments)

    def _once(self, method: str, route: str, body: Mapping[str, Any] | None) -> dict[str, Any]:
        # Such a reply comes all at once, so that silence and whole are the same to whoever waits.
        limit = self.timeout_s
        with (
            explained(self.url, limit, limit),
            ended_after(limit) as extensions,
            self._client.stream(method, route, json=body, extensions=extensions) as reply,
        ):
            text = whole(reply.iter_bytes(), self.url)
        if not reply.is_success:
            raise self._failure(reply, text, body)
        return decoded(text, self.url)

    def _parts(self, route: str, body: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        lines = Lines(self.url)
        with (
            explained(self.url, self.timeout_s, self.deadline_s),
            ended_after(self.deadline_s) as extensions,
            self._client.stream("POST", route, json=body, extensions=extensions) as reply,
        ):
            if not reply.is_success:
                raise self._failure(reply, whole(reply.iter_bytes(), self.url), body)
            for chunk in reply.iter_bytes():
                for line in lines.of(chunk):
                    yield self._part(line, body)
            for line in lines.rest():
                yield self._part(line, body)

    async def _aparts(self, route: str, body: Mapping[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        lines, ends = Lines(self.url), asyncio.get_running_loop().time() + self.deadline_s
        with explained(self.url, self.timeout_s, self.deadline_s):
            async with AsyncExitStack() as opened:
                async with asyncio.timeout_at(ends):
                    reply = await opened.enter_async_context(self._async_client.stream("POST", route, json=body))
                chunks = await opened.enter_async_context(aclosing(until(ends, reply.aiter_bytes())))
                if not reply.is_success:
                    text = whole([chunk async for chunk in chunks], self.url)
                    raise await asyncio.to_thread(self._failure, reply, text, body)
                async for chunk in chunks:
                    for line in lines.of(chunk):
                        yield self._part(line, body)
                for line in lines.rest():
                    yield self._part(line, body)

    def _part(self, line: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Return one line of a stream; an error may come in the middle of it, under HTTP 200."""
        part = decoded(line, self.url)
        if "error" in part:
            raise failure(500, line, self.url, str(body.get("model", "")), None)
        return part

    def _failure(self, reply: httpx.Response, text: str, body: Mapping[str, Any] | None) -> Exception:
        model, status = str((body or {}).get("model", "")), reply.status_code
        said = reply.headers.get("location", text) if reply.is_redirect else text
        return failure(status, said, self.url, model, self._names() if status == 404 and model else None)

    def _names(self) -> list[str] | None:
        try:
            return [entry["name"] for entry in self.models(fresh=True)]
        except SleiclError:
            return None  # the first failure is the one to tell

    @functools.cached_property
    def _client(self) -> httpx.Client:
        return httpx.Client(**{"verify": _certificates(), **self._settings})

    @property
    def _async_client(self) -> httpx.AsyncClient:
        loop = asyncio.get_running_loop()
        if loop not in self._async_clients:
            self._async_clients[loop] = httpx.AsyncClient(**{"verify": _certificates(), **self._settings})
        return self._async_clients[loop]

    @property
    def version(self) -> Version:
        """The server's version as numbers, such as (0, 24, 0); asked once."""
        if self._version is None:
            self._version = numbers(str(self.get("/api/version").get("version", "")))
        return self._version

    def models(self, *, fresh: bool = False) -> list[dict[str, Any]]:
        """Return the installed models as /api/tags lists them: name, digest, size, details."""
        now = time.monotonic()
        if fresh or self._models is None or now - self._models[0] > _FRESH_S:
            self._models = now, list(self.get("/api/tags").get("models") or [])
        return self._models[1]

    def find(self, name: str) -> dict[str, Any]:
        """Return the entry of an installed model; at most two requests, none if the list is fresh.

        Raises:
            ModelNotFound: there is none; says what is installed.
            ServerError: the server could not be asked.
        """
        wanted = _full_name(name)
        for fresh in (False, True):  # it may have been pulled a moment ago
            for entry in self.models(fresh=fresh):
                if _full_name(str(entry.get("name", ""))) == wanted and entry.get("digest"):
                    return entry
        raise model_missing(name, self.url, [str(entry.get("name")) for entry in self.models()])

    def show(self, name: str) -> dict[str, Any]:
        """Return /api/show: template, parameters, capabilities, `model_info`, `modelfile`."""
        return self.post("/api/show", {"model": name})


def _full_name(name: str) -> str:
    """Return the name as the server lists it: with a tag, without the parts that Ollama fills in."""
    name = name.casefold().removeprefix("registry.ollama.ai/").removeprefix("library/")
    return name if ":" in name.rpartition("/")[2] else f"{name}:latest"


def _nothing_came(url: str) -> CutReply:
    return CutReply(f"The Ollama server at {url} ended its reply before the first part; its log may say why")


@functools.cache
def _certificates() -> ssl.SSLContext:
    """Read the certificates once; each client would take 40 ms for it."""
    return httpx.create_ssl_context()
