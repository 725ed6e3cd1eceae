"""Where the Ollama server is: `OLLAMA_HOST` in every form that Ollama itself takes."""

import base64
import ipaddress
import os
import re
from dataclasses import dataclass, field
from urllib.parse import SplitResult, unquote, urlsplit

from sleicl_chains.errors import OptionError
from sleicl_chains.models.addresses import is_loopback, refuse_in_clear, warn_of_password
from sleicl_chains.models.secrets import without_login

_PORTS = {"http": 80, "https": 443}
_DEFAULT_PORT = 11434
_FORMS = "expected HOST, HOST:PORT or http://HOST:PORT, such as OLLAMA_HOST=127.0.0.1:11434"


@dataclass(frozen=True)
class Address:
    """A server's address."""

    url: str
    """Scheme, host and port, and the path of a proxy; without user name and password."""
    headers: dict[str, str] = field(default_factory=dict, repr=False)
    """`authorization`, from a user name in the address or from a key."""

    @property
    def is_local(self) -> bool:
        """Whether the server runs on this machine, as far as the address tells."""
        return is_loopback(self.url)


def server_address(host: str | None = None, api_key: str | None = None) -> Address:
    """Return the address that `host` means, else `$OLLAMA_HOST`, else 127.0.0.1:11434.

    As in Ollama, the port is 11434, but 80 or 443 where http:// or https:// is spelled out. An
    address that only a server can listen on (0.0.0.0, ::) becomes loopback. The key is `api_key`, else
    `$OLLAMA_API_KEY`; a user name in the address comes before either. A password that others can read on its way
    is warned of.

    Raises:
        OptionError: it is no address, or that of another protocol, or `$OLLAMA_API_KEY` would be sent unencrypted.
    """
    given = _given(host)
    split, port = _split(given)
    name = _connectable(split.hostname or "127.0.0.1")
    path = split.path.rstrip("/")
    url = f"{split.scheme}://{name}:{port}{path}"
    if path.endswith("/v1"):
        raise _other_protocol(without_login(given), url)
    return Address(url, _authorization(split, url, api_key))


def check_environment() -> None:
    """Raise OptionError if `$OLLAMA_HOST` is no address; it need not be the one that is asked."""
    _split(_given(None))


def _given(host: str | None) -> str:
    given = (host or os.environ.get("OLLAMA_HOST") or "").strip().strip("\"'").strip()
    return "https://ollama.com" if given == "ollama.com" else given  # as Ollama's own client reads it


def _split(given: str) -> tuple[SplitResult, int]:
    spelled = "://" in given
    try:
        split = urlsplit(given if spelled else f"http://{_bracketed(given)}")
        port = split.port
    except ValueError:
        raise _no_address(given) from None
    if split.scheme not in _PORTS or any(character.isspace() for character in split.netloc):
        raise _no_address(given)
    return split, port or (_PORTS[split.scheme] if spelled else _DEFAULT_PORT)


def _no_address(given: str) -> OptionError:
    hidden = re.sub(r"[^/@]*@", "...@", given)  # a password
    return OptionError(f"There is no Ollama server at {hidden!r}; {_FORMS}")


def _other_protocol(given: str, url: str) -> OptionError:
    return OptionError(
        f"{given!r} ends in /v1, where servers speak as OpenAI does; drop /v1 for Ollama's own protocol "
        f"({url.removesuffix('/v1')}), or take openai:NAME with --base-url {url}"
    )


def _bracketed(given: str) -> str:
    """Put brackets round a bare IPv6 address, whose last part would be read as a port."""
    try:
        return f"[{given}]" if ipaddress.ip_address(given).version == 6 else given
    except ValueError:
        return given


def _connectable(host: str) -> str:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if address.is_unspecified:
        address = ipaddress.ip_address("127.0.0.1" if address.version == 4 else "::1")
    return f"[{address.compressed}]" if address.version == 6 else str(address)


def _authorization(split: SplitResult, url: str, api_key: str | None) -> dict[str, str]:
    if split.username:
        warn_of_password(url)
        pair = f"{unquote(split.username)}:{unquote(split.password or '')}"
        return {"authorization": "Basic " + base64.b64encode(pair.encode()).decode()}
    if api_key:
        return {"authorization": f"Bearer {api_key}"}
    key = os.environ.get("OLLAMA_API_KEY", "").strip()
    if key:
        refuse_in_clear(url, "OLLAMA_API_KEY")
    return {"authorization": f"Bearer {key}"} if key else {}
