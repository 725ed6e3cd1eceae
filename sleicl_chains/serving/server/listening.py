"""The address that a server listens at, and its life there: until it is told to end and has done what it began."""

import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sleicl_chains.errors import InputError

if TYPE_CHECKING:
    from starlette.types import ASGIApp
    from uvicorn import Server

_CONNECTIONS = 512
"""More at once are turned away by the web server itself; most idle."""
_STOP_S = 30
"""How long running requests may take to end once the server is told to."""


@contextmanager
def listening(host: str, port: int) -> Iterator[tuple[socket.socket, str]]:
    """Yield an open socket and the address to tell a user.

    Raises:
        InputError: nobody may listen there, or somebody does.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        opened = socket.create_server((host, port), family=family, backlog=256)
    except OSError as problem:
        said = str(problem.strerror or problem).partition(" (while")[0]
        raise InputError(f"{host}, port {port}: {said}; --port names another (0 takes a free one)") from None
    with opened:
        shown = f"[{host}]" if ":" in host else host
        yield opened, f"http://{shown}:{opened.getsockname()[1]}"


def server_of(app: "ASGIApp") -> "Server":
    """Return the web server of an app; `Server.run(sockets=[...])` runs it."""
    from uvicorn import Config, Server

    return Server(
        Config(
            app, log_config=None, log_level="error", access_log=False, lifespan="off", server_header=False, ws="none",
            limit_concurrency=_CONNECTIONS, timeout_keep_alive=30, timeout_graceful_shutdown=_STOP_S,
        )
    )  # fmt: skip


def run(app: "ASGIApp", opened: socket.socket) -> None:
    """Serve until Ctrl-C or SIGTERM, then finish what runs; a second Ctrl-C does not wait."""
    if threading.current_thread() is threading.main_thread():
        # The web server raises the signal again once it has ended; that is an end as it should be, with status 0.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: None)
    server_of(app).run(sockets=[opened])
