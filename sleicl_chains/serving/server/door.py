"""Who may come in: hosts, origins and keys are looked at before anything else, and whoever leaves is counted."""

import hmac
from collections.abc import Callable
from urllib.parse import quote

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sleicl_chains.errors import OptionError
from sleicl_chains.models.addresses import is_loopback
from sleicl_chains.serving.listening import is_called_here
from sleicl_chains.serving.server.failures import Failure
from sleicl_chains.serving.server.metrics import Metrics, Record
from sleicl_chains.serving.server.requests import GONE

_OPEN = "/health"
"""Needs no key: it tells that the server is up, and no more."""
_SILENT = ("/health", "/metrics")
"""Are asked every few seconds by machines; neither counted nor logged."""


def check_key(key: str | None) -> None:
    """Refuse a key that no client could show.

    Raises:
        OptionError: it fits no header.
    """
    if key and not (key.isascii() and key.isprintable() and " " not in key):
        raise OptionError("--api-key: found spaces or characters outside of ASCII, which fit no HTTP header")


class Door:
    """An ASGI app around the server's own.

    Args:
        app: behind the door.
        metrics: counts.
        key: what clients must show. Without one only this machine can reach the server, and what a browser sends
            here for another site's page is refused: by its Host where that site's name was turned to this machine (DNS
            rebinding), and else by its Origin.
        log: takes a line a request.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, *, key: str | None, log: Callable[[str], None]) -> None:
        self.app, self.metrics, self.log = app, metrics, log
        self._key = key.encode() if key else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in, or answer it at the door."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        record = scope["sleicl"] = Record()

        async def noted(message: Message) -> None:
            if message["type"] == "http.response.start" and not record.status:
                record.status = message["status"]
            await send(message)

        try:
            if refusal := self._refusal(scope):
                headers = {"WWW-Authenticate": "Bearer"} if refusal.status == 401 else {}
                answer = JSONResponse(refusal.body(scope["path"]), refusal.status, headers)
                await answer(scope, receive, noted)
            else:
                await self.app(scope, receive, noted)
        except ClientDisconnect:
            record.status = GONE
        finally:
            self._note(scope, record)

    def _refusal(self, scope: Scope) -> Failure | None:
        headers = Headers(scope=scope)
        if self._key is not None:
            if scope["path"] == _OPEN or self._shown(headers.get("authorization", "")):
                return None
            return Failure(401, "A key is wanted: Authorization: Bearer KEY", code="invalid_api_key")
        host, origin = headers.get("host", ""), headers.get("origin")
        if not is_called_here(host):
            return Failure(403, "The Host header names another machine than this one", code="wrong_host")
        if origin is not None and not is_loopback(origin):
            return Failure(403, "Pages of other sites may not ask this server", code="wrong_origin")
        return None

    def _shown(self, authorization: str) -> bool:
        kind, _, key = authorization.partition(" ")
        return kind.lower() == "bearer" and hmac.compare_digest(key.strip().encode(), self._key or b"")

    def _note(self, scope: Scope, record: Record) -> None:
        record.status = record.status or GONE
        if scope["path"] in _SILENT:
            return
        self.metrics.count(record)
        self.log(record.line(scope["method"], quote(scope["path"])[:100]))
