"""Settings without what opens doors: keys, passwords and tokens, by their names, and who logs in at an address."""

import re
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl, urlsplit, urlunsplit

_NAME = re.compile(
    r"(key|token|password|passwd|secret|credential|authorization|cookie|passphrase|signature)s?$"
    r"|(^|[^a-z])(auth|bearer|jwt|pass|pat|pwd|sas|sig)$",
    re.IGNORECASE,
)
_COUNTED = re.compile(r"tokens$", re.IGNORECASE)
"""`max_tokens` and its like: with a number no secret, but the setting that counts most."""
_IN_QUERY = re.compile(r"^(code|session)$", re.IGNORECASE)
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://\S+", re.IGNORECASE)


def without_secrets(value: Any) -> Any:
    """Return JSON data without headers, without what stands under a telling name, and with addresses bared of both.

    Under a JSON schema's `properties` names are those of fields: there only a text is dropped.
    """
    return _bared(value, _is_secret)


def _bared(value: Any, drops: Callable[[str, object], bool]) -> Any:
    if isinstance(value, dict):
        kept = {key: item for key, item in value.items() if not drops(key, item)}
        return {key: _bared(item, _rule_below(key)) for key, item in kept.items()}
    if isinstance(value, list):
        return [_bared(item, _is_secret) for item in value]
    return _ADDRESS.sub(lambda found: without_login(found[0]), value) if isinstance(value, str) else value


def _rule_below(name: str) -> Callable[[str, object], bool]:
    if name == "properties":
        return _is_secret_text
    return _is_secret_in_query if name.lower().endswith(("query", "params")) else _is_secret


def _is_secret(name: str, value: object) -> bool:
    if name.lower().endswith("headers"):
        return True
    if value is None or (_COUNTED.search(name) and isinstance(value, int | float)):
        return False
    return bool(_NAME.search(name))


def _is_secret_text(name: str, value: object) -> bool:
    return isinstance(value, str) and _is_secret(name, value)


def _is_secret_in_query(name: str, value: object) -> bool:
    return _is_secret(name, value) or bool(_IN_QUERY.search(name))


def without_login(address: str) -> str:
    """Drop user, password and secret values from an address; one without any stays as it is written."""
    scheme, _, rest = address.partition("://")
    try:
        parts = urlsplit(address)
        _ = parts.port
    except ValueError:  # a password with a slash, say: all before the last @ may be part of it
        return f"{scheme}://{rest.rpartition('@')[2]}"
    place = parts.netloc.rpartition("@")[2]
    query, fragment = _without_values(parts.query), _without_values(parts.fragment)
    if (place, query, fragment) == (parts.netloc, parts.query, parts.fragment):
        return address
    return urlunsplit((scheme, place, parts.path, query, fragment))


def _without_values(query: str) -> str:
    """Drop the secret ones of `a=1&b=2`."""
    kept = [part for part in query.split("&") if not any(_is_secret_in_query(*pair) for pair in parse_qsl(part))]
    return "&".join(kept)


_FORMER_NAME = re.compile(r"(key|token|password|passwd|secret|credential|authorization|cookie)s?$", re.IGNORECASE)
_FORMER_USER = re.compile(r"(?<=://)[^/@\s]+@")


def formerly_without_secrets(value: Any) -> Any:
    """Do the same as versions up to 0.1.0: only for finding what those have kept in a journal."""
    if isinstance(value, dict):
        kept = {key: item for key, item in value.items() if not _was_secret(key, item)}
        return {key: formerly_without_secrets(item) for key, item in kept.items()}
    if isinstance(value, list):
        return [formerly_without_secrets(item) for item in value]
    return _FORMER_USER.sub("", value) if isinstance(value, str) else value


def _was_secret(name: str, value: object) -> bool:
    return name.lower().endswith("headers") or (isinstance(value, str) and bool(_FORMER_NAME.search(name)))
