"""Where a server of ours listens, who can reach it there, and its life until it is told to end.

For `sleicl serve` and `sleicl web`.
"""

import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sleicl_chains.errors import InputError, OptionError
from sleicl_chains.models.addresses import is_loopback

if TYPE_CHECKING:
    from starlette.types import ASGIApp
    from uvicorn import Server

_LEAST = 8
"""Characters of a key or password."""
_CONNECTIONS = 512
"""More at once are turned away by the web server itself; most idle."""


def is_here(host: str) -> bool:
    """Tell whether only this machine reaches a server that listens at an address."""
    return is_loopback(f"http://[{host}]" if ":" in host else f"http://{host}")


def is_called_here(header: str) -> bool:
    """Tell whether a request's Host header names this machine.

    It does not where the page of another site has had its own name point here (DNS rebinding).
    """
    return is_loopback(f"http://{header}")


def check_reach(host: str, secret: str | None, *, option: str, variable: str) -> None:
    """Refuse a server that other machines can reach and that asks nobody for a key or password.

    Args:
        host: where it is to listen.
        secret: what it asks for; None for nothing.
        option: by which the user gives it, such as `--api-key`.
        variable: of the environment, by which it is given as well.

    Raises:
        OptionError: there is none, or one that is quickly guessed.
    """
    if secret is not None and len(secret) < _LEAST:
        raise OptionError(f"{option}: expected at least {_LEAST} characters, found {len(secret)}")
    if secret is None and not is_here(host):
        raise OptionError(
            f"--host {host} lets other machines in, so it takes ${variable} (or {option}, which others see in the "
            "list of processes); without --host it is for this machine alone"
        )


@contextmanager
def listening(host: str, port: int) -> Iterator[tuple[socket.socket, str]]:
    """Yield an open socket and the address to tell a user; port 0 takes a free one.

    Raises:
        InputError: nobody may listen there, or somebody does.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        opened = socket.create_server((host, port), family=family, backlog=256)
    except (OSError, OverflowError) as problem:
        said = str(getattr(problem, "strerror", None) or problem).partition(" (while")[0]
        raise InputError(f"{host}, port {port}: {said}; --port names another (0 takes a free one)") from None
    with opened:
        shown = f"[{host}]" if ":" in host else host
        yield opened, f"http://{shown}:{opened.getsockname()[1]}"


def server_of(app: "ASGIApp", *, stop_s: int = 30) -> "Server":
    """Return the web server of an app; `Server.run(sockets=[...])` runs it.

    Args:
        app: what answers.
        stop_s: how long running requests may take to end once the server is told to, in seconds.
    """
    from uvicorn import Config, Server

    return Server(
        Config(
            app, log_config=None, log_level="error", access_log=False, server_header=False, proxy_headers=False,
            ws="none", limit_concurrency=_CONNECTIONS, timeout_keep_alive=30, timeout_graceful_shutdown=stop_s,
        )
    )  # fmt: skip


def run(app: "ASGIApp", opened: socket.socket, *, greet: Callable[[], None], stop_s: int = 30) -> None:
    """Serve until Ctrl-C or SIGTERM, then finish what runs; a second Ctrl-C does not wait.

    Args:
        app: what answers.
        opened: where it listens.
        greet: called once a signal ends the server as it should; requests may come before.
        stop_s: as `server_of` has it.
    """
    server = server_of(app, stop_s=stop_s)

    def end(*_: object) -> None:
        server.should_exit = True

    if threading.current_thread() is threading.main_thread():
        # While it starts, the web server hears no signal. The one that ends it, it raises again in the end; that is no
        # failure, and the status is 0.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, end)
    greet()
    server.run(sockets=[opened])
