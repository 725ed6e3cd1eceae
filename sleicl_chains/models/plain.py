"""What is kept of requests and replies: plain JSON data, and the key of a request."""

import hashlib
import json
from datetime import UTC, datetime
from typing import Any

from pydantic_core import to_jsonable_python


def as_json(value: object) -> str:
    """Return `value` as JSON that is the same for equal values."""
    return json.dumps(plain(value), sort_keys=True, separators=(",", ":"))


def key_of(text: str) -> str:
    """Return the key of a request's JSON."""
    return hashlib.sha256(text.encode()).hexdigest()


def plain(value: object) -> Any:
    """Return `value` as JSON data: pydantic objects as dicts, what is no data as its class's name."""
    return to_jsonable_python(value, bytes_mode="base64", inf_nan_mode="constants", fallback=_class_name)


def _class_name(value: object) -> str:
    return value.__qualname__ if isinstance(value, type) else type(value).__qualname__


def now() -> str:
    """Return the UTC time, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
