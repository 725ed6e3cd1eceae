"""What a server's address decides: whether a proxy is asked, and whether a key may be sent there."""

import functools
import ipaddress
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from sleicl_chains.errors import ModelError, OptionError
from sleicl_chains.models.secrets import without_login

if TYPE_CHECKING:
    import httpx

_NO_KEY = "none-needed"
"""Sent to a server of one's own where no key is set: the client wants one, and such servers ask for none."""
_PATIENCE_S = 1800.0
"""Longest silence of an OpenAI-compatible server, as long as a thinking model may take; LangChain sets none."""


def is_loopback(url: str) -> bool:
    """Tell whether an address is this machine's, as far as it says so itself; no name is looked up."""
    host = _host(url).rstrip(".")
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost"
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def is_in_clear(url: str) -> bool:
    """Tell whether others on the way can read what is sent there: plain http to another machine, however near."""
    return url.lower().startswith("http://") and not is_loopback(url)


def refuse_in_clear(url: str, variable: str) -> None:
    """Refuse to send a key of the environment to an address where others can read it.

    Raises:
        OptionError: it is plain http to another machine.
    """
    if is_in_clear(url):
        raise OptionError(
            f"${variable} would go to {without_login(url)} unencrypted; use https://, unset {variable}, or name the "
            "key that a model's server may get with --option api_key=KEY"
        )


def warn_of_password(url: str) -> None:
    """Warn of a password that is sent to an address where others can read it."""
    if is_in_clear(url):
        text = f"The user name and password go to {without_login(url)} unencrypted; use https://"
        warnings.warn(text, stacklevel=2)


def proxy_problem(problem: Exception, wanted: str) -> ModelError | None:
    """Return what a client's complaint means if it is that of a SOCKS proxy without its package."""
    if not (isinstance(problem, ImportError) and "socks" in str(problem).lower()):
        return None
    return ModelError(
        f"{wanted} is to be asked through a SOCKS proxy ($ALL_PROXY, $HTTPS_PROXY or $HTTP_PROXY), which needs one "
        "more package: run `pip install socksio`, or name the server in NO_PROXY"
    )


@contextmanager
def no_proxies() -> Iterator[None]:
    """Hide the proxies of the environment from what makes clients meanwhile, such as the ollama package's import."""
    before = os.environ.get("no_proxy")
    os.environ["no_proxy"] = "*"
    try:
        yield
    finally:
        if before is None:
            del os.environ["no_proxy"]
        else:
            os.environ["no_proxy"] = before


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def openai_options(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of langchain-openai's classes, with what the server's address asks for.

    On loopback no proxy is asked, unless `openai_proxy` names one. A server of one's own gets a key that means
    nothing where none is set.

    Raises:
        OptionError: the key of the environment would be sent unencrypted.
    """
    url = _openai_address(given)
    patience = {} if "request_timeout" in given else {"timeout": _PATIENCE_S}
    if not url:
        return {**patience, **given}
    if urlsplit(url).username:
        warn_of_password(url)
    return {**patience, **_key_for(url, given), **_clients_for(url, given), **given}


def _openai_address(given: Mapping[str, Any]) -> str:
    """Return the address in the order in which langchain-openai looks for it; empty for the provider's own."""
    named = given.get("base_url") or given.get("openai_api_base")
    return str(named or os.environ.get("OPENAI_API_BASE") or os.environ.get("OPENAI_BASE_URL") or "")


def _key_for(url: str, given: Mapping[str, Any]) -> dict[str, str]:
    if given.get("api_key") or given.get("openai_api_key"):
        return {}
    if os.environ.get("OPENAI_API_KEY"):
        refuse_in_clear(url, "OPENAI_API_KEY")
        return {}
    theirs = _host(url) == "openai.com" or _host(url).endswith(".openai.com")
    return {} if theirs else {"api_key": _NO_KEY}


def _clients_for(url: str, given: Mapping[str, Any]) -> dict[str, Any]:
    named = "openai_proxy" in given or "http_client" in given or "http_async_client" in given
    if named or os.environ.get("OPENAI_PROXY") or not is_loopback(url):
        return {}
    sync, asynchronous = _direct_clients()
    return {"http_client": sync, "http_async_client": asynchronous}


@functools.cache
def _direct_clients() -> "tuple[httpx.Client, httpx.AsyncClient]":
    """Return clients that ask no proxy. They keep no connection, so that none is left open in a loop that ends."""
    import httpx

    settings: dict[str, Any] = {
        "trust_env": False, "follow_redirects": True, "timeout": _PATIENCE_S,
        "limits": httpx.Limits(max_keepalive_connections=0),
    }  # fmt: skip
    return httpx.Client(**settings), httpx.AsyncClient(**settings)
