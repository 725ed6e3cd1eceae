"""One Ollama server over HTTP: requests in, plain JSON out, every failure typed; sync and async.

The `ollama` package is not used for this: it has no `truncate`, `shift` and rendering requests, drops
the bytes of tokens, waits for ever by default, and its errors differ by the path they take.
"""

import asyncio
import functools
import itertools
import ssl
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping
from contextlib import aclosing
from typing import Any
from weakref import WeakKeyDictionary

import httpx
from tenacity import AsyncRetrying, Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from sleicl_chains.errors import SleiclError
from sleicl_chains.ollama.address import Address
from sleicl_chains.ollama.failures import decoded, explained, failure, model_missing, passes
from sleicl_chains.ollama.versions import numbers

_FRESH_S = 10.0
"""How long an answer about the server's models is believed; one may be pulled again under its name."""
_CONNECT_S = 5.0


class Server:
    """A server and how patiently it is asked. Safe for threads, forks and event loops.

    Connections are not kept: on loopback a new one costs a fraction of a millisecond, and none is
    left open in a thread, a fork or an event loop that ends.

    Args:
        address: where it is.
        timeout_s: longest silence to bear, in seconds; covers queueing, loading and reading the prompt.
        attempts: how often a request is sent in all, while `failures.passes` says that it may succeed.
    """

    def __init__(self, address: Address, *, timeout_s: float = 600.0, attempts: int = 3) -> None:
        self.address, self.timeout_s, self.attempts = address, timeout_s, attempts
        self._settings: dict[str, Any] = {
            "base_url": address.url,
            "headers": address.headers,
            "timeout": httpx.Timeout(timeout_s, connect=_CONNECT_S, pool=None),
            "limits": httpx.Limits(max_keepalive_connections=0),
            "trust_env": not address.is_local,  # a proxy has no business on loopback
            "follow_redirects": True,
        }
        self._async_clients: WeakKeyDictionary[Any, httpx.AsyncClient] = WeakKeyDictionary()
        self._models: tuple[float, list[dict[str, Any]]] | None = None

    @property
    def url(self) -> str:
        """The address to print."""
        return self.address.url

    # ------------------------------------------------------------------ requests

    def get(self, route: str) -> dict[str, Any]:
        """Ask for `route`. Raises a SleiclError of `failures`."""
        reply: dict[str, Any] = self._retry(self._once, "GET", route, None)
        return reply

    def post(self, route: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Send one request and return the whole reply. Raises a SleiclError of `failures`."""
        reply: dict[str, Any] = self._retry(self._once, "POST", route, body)
        return reply

    def stream(self, route: str, body: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """Send one request and yield the reply's parts; sent again only while no part has come."""
        yield from self._retry(_begun, self._parts, route, body)

    async def astream(self, route: str, body: Mapping[str, Any]) -> AsyncIterator[dict[str, Any]]:
        """Do the same as `stream` without blocking."""
        async for attempt in AsyncRetrying(**self.patience()):
            with attempt:
                parts = self._aparts(route, body)
                first = await anext(parts, None)
        async with aclosing(parts):
            if first is not None:
                yield first
            async for part in parts:
                yield part

    def patience(self, worth: Callable[[BaseException], bool] = passes) -> dict[str, Any]:
        """Return how tenacity is to try again what fails in a way that is `worth` it."""
        return {
            "retry": retry_if_exception(worth),
            "stop": stop_after_attempt(self.attempts),
            "wait": wait_random_exponential(multiplier=0.3, max=5),
            "reraise": True,
        }

    def _retry(self, send: Any, *arguments: Any) -> Any:
        return Retrying(**self.patience())(send, *arguments)

    def _once(self, method: str, route: str, body: Mapping[str, Any] | None) -> dict[str, Any]:
        with explained(self.url, self.timeout_s):
            reply = self._client.request(method, route, json=body)
        if reply.is_error:
            raise self._failure(reply.status_code, reply.text, body)
        return decoded(reply.text, self.url)

    def _parts(self, route: str, body: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        with explained(self.url, self.timeout_s), self._client.stream("POST", route, json=body) as reply:
            if reply.is_error:
                raise self._failure(reply.status_code, reply.read().decode(errors="replace"), body)
            for line in reply.iter_lines():
                if line.strip():
                    yield self._part(line, body)

    async def _aparts(self, route: str, body: Mapping[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        with explained(self.url, self.timeout_s):
            async with self._async_client.stream("POST", route, json=body) as reply:
                if reply.is_error:
                    text = (await reply.aread()).decode(errors="replace")
                    raise await asyncio.to_thread(self._failure, reply.status_code, text, body)
                async for line in reply.aiter_lines():
                    if line.strip():
                        yield self._part(line, body)

    def _part(self, line: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Return one line of a stream; an error may come in the middle of it, under HTTP 200."""
        part = decoded(line, self.url)
        if "error" in part:
            raise self._failure(int(part.get("status") or 500), line, body)
        return part

    def _failure(self, status: int, text: str, body: Mapping[str, Any] | None) -> Exception:
        model = str((body or {}).get("model", ""))
        return failure(status, text, self.url, model, self._names() if status == 404 and model else None)

    def _names(self) -> list[str] | None:
        try:
            return [entry["name"] for entry in self.models(fresh=True)]
        except SleiclError:
            return None  # the first failure is the one to tell

    # ------------------------------------------------------------------ clients

    @functools.cached_property
    def _client(self) -> httpx.Client:
        return httpx.Client(verify=_certificates(), **self._settings)

    @property
    def _async_client(self) -> httpx.AsyncClient:
        loop = asyncio.get_running_loop()
        if loop not in self._async_clients:
            self._async_clients[loop] = httpx.AsyncClient(verify=_certificates(), **self._settings)
        return self._async_clients[loop]

    # ------------------------------------------------------------------ what is there

    @functools.cached_property
    def version(self) -> tuple[int, ...]:
        """The server's version as numbers, such as (0, 24, 0); asked once."""
        return numbers(str(self.get("/api/version").get("version", "")))

    def models(self, *, fresh: bool = False) -> list[dict[str, Any]]:
        """Return the installed models as /api/tags lists them: name, digest, size, details."""
        now = time.monotonic()
        if fresh or self._models is None or now - self._models[0] > _FRESH_S:
            self._models = now, list(self.get("/api/tags").get("models") or [])
        return self._models[1]

    def find(self, name: str) -> dict[str, Any]:
        """Return the entry of an installed model.

        Raises:
            ModelNotFound: there is none; says what is installed.
        """
        wanted = {name.casefold(), f"{name}:latest".casefold()}
        for entry in self.models():
            if str(entry.get("name", "")).casefold() in wanted:
                return entry
        raise model_missing(name, self.url, [entry["name"] for entry in self.models()])

    def show(self, name: str) -> dict[str, Any]:
        """Return /api/show: template, parameters, capabilities, `model_info`, `modelfile`."""
        return self.post("/api/show", {"model": name})


def _begun(parts: Any, route: str, body: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Open a stream and wait for its first part, so that what fails before can be tried again."""
    stream = parts(route, body)
    first = next(stream, None)
    return stream if first is None else itertools.chain([first], stream)


@functools.cache
def _certificates() -> ssl.SSLContext:
    """Read the certificates once; each client would take 40 ms for it."""
    return httpx.create_ssl_context()
