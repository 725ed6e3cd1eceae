"""The server of the page: what it lets in and out, wherever the page's own framework is more liberal."""

from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sleicl_chains.serving.listening import is_called_here

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
        here: whether only this machine reaches the page; then it must be called by a name of this machine.
    """

    def __init__(self, app: ASGIApp, *, here: bool = True) -> None:
        self.app = app
        self.here = here

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or have it answered."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":  # there are no web sockets here
                await self.app(scope, receive, send)
            return
        if refused := refusal(scope["path"], Headers(scope=scope), here=self.here):
            status, text = refused
            await PlainTextResponse(text, status)(scope, receive, send)
            return
        await self.app(scope, _bounded(receive), _with_headers(send))


def refusal(path: str, headers: Headers, *, here: bool = True) -> tuple[int, str] | None:
    """Return status and text of a refusal; None for a request that is let in."""
    host = headers.get("host", "")
    if here and not is_called_here(host):
        return 403, "the Host header names another machine than this one"
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
