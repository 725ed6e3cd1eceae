"""The server of the page: what it lets in and out, wherever the page's own framework is more liberal."""

import socket
from collections.abc import Sequence
from urllib.parse import urlsplit

import uvicorn
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sleicl_chains.errors import OptionError
from sleicl_chains.models.addresses import is_loopback

BODY = 4 * 10**6
"""Bytes of a request: pasted rows, twice."""
_CLOSED = (
    "upload", "file", "proxy=", "deep_link", "component_server", "process_recording", "vibe", "undo-vibe", "stream",
    "run-history", "runs", "custom_component", "api/", "call/", "openapi", "info", "dev/",
)  # fmt: skip
"""Routes of Gradio that this page does not use."""
_POLICY = "; ".join(
    [
        "default-src 'self'",
        "script-src 'self' 'unsafe-inline'",  # the page begins with its own settings in a script
        "script-src-attr 'none'",  # onerror= and its like
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "font-src 'self' data:",
        "connect-src 'self'",
        "object-src 'none'",
        "frame-src 'none'",
        "worker-src 'self' blob:",
        "form-action 'self'",
        "base-uri 'self'",
        "frame-ancestors 'none'",
    ]
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-DNS-Prefetch-Control": "off",  # else the browser looks up the hosts of links that nobody has followed
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}


class Guard:
    """Refuses what no page of ours sends, and tells the browser to fetch nothing from elsewhere.

    Args:
        app: what is guarded.
        hosts: names by which the server may be called; empty for any. On loopback this keeps out pages of other sites
            that have their own name point here.
    """

    def __init__(self, app: ASGIApp, hosts: Sequence[str] = ()) -> None:
        self.app = app
        self.hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or have it answered."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":  # there are no web sockets here
                await self.app(scope, receive, send)
            return
        if refused := refusal(scope["path"], Headers(scope=scope), self.hosts):
            status, text = refused
            await PlainTextResponse(text, status)(scope, receive, send)
            return
        await self.app(scope, _bounded(receive), _with_headers(send))


def refusal(path: str, headers: Headers, hosts: Sequence[str]) -> tuple[int, str] | None:
    """Return status and text of a refusal; None for a request that is let in."""
    host = headers.get("host", "")
    if hosts and urlsplit(f"//{host}").hostname not in hosts:
        return 421, f"this server is called {' or '.join(hosts)}"
    origin = headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != host:
        return 403, "requests of other pages are refused"
    if path.removeprefix("/gradio_api/").startswith(_CLOSED) and path.startswith("/gradio_api/"):
        return 404, "there is nothing here"
    length = headers.get("content-length", "0")
    if not length.isdecimal() or int(length) > BODY:
        return 413, f"at most {BODY:,} bytes are taken"
    return None


def _bounded(receive: Receive) -> Receive:
    """Return what receives no more than a body may have, whatever length was announced."""
    left = BODY

    async def receive_some() -> Message:
        nonlocal left
        message = await receive()
        left -= len(message.get("body", b""))
        return message if left >= 0 else {"type": "http.disconnect"}

    return receive_some


def _with_headers(send: Send) -> Send:
    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                headers[name] = value
        await send(message)

    return send_with_headers


def is_here(host: str) -> bool:
    """Say whether only this machine reaches a server at an address."""
    return is_loopback(f"http://[{host}]" if ":" in host else f"http://{host}")


def check_reach(host: str, password: str | None) -> None:
    """Refuse a page that others can reach and that asks nobody who they are.

    Raises:
        OptionError: there is no password, or an empty one.
    """
    if password is not None and len(password) < 8:
        raise OptionError("--password: expected at least 8 characters")
    if password is None and not is_here(host):
        raise OptionError(
            f"--host {host}: others can reach this page, so it wants a --password (or $SLEICL_WEB_PASSWORD); "
            "without --host it is for this machine alone"
        )


def bound(host: str, port: int) -> socket.socket:
    """Return a socket at an address; port 0 takes a free one.

    Raises:
        OptionError: the address is not to be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as problem:
        said = getattr(problem, "strerror", None) or problem
        raise OptionError(f"port {port} at {host} cannot be used ({said}); --port 0 takes a free one") from None


def url_of(listening: socket.socket) -> str:
    """Return the address that a browser is given."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def run(app: ASGIApp, listening: socket.socket) -> None:
    """Serve until Ctrl-C or a signal to end; an answer that runs is waited for a few seconds."""
    config = uvicorn.Config(app, log_level="error", access_log=False, timeout_graceful_shutdown=3, ws="none",
                            proxy_headers=False, server_header=False)  # fmt: skip
    uvicorn.Server(config).run(sockets=[listening])
