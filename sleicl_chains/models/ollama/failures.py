"""What went wrong between here and an Ollama server, as typed errors that say what helps."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import httpx

from sleicl_chains.errors import (
    CutReply,
    GarbledReply,
    ModelError,
    ModelNotFound,
    OptionError,
    PromptTooLong,
    ServerBusy,
    ServerDown,
    ServerFailed,
    TimedOut,
    Unsupported,
    one_line,
)
from sleicl_chains.models.addresses import proxy_problem

_TOO_LONG = re.compile(r"exceeds? (?:the |maximum )?(?:available )?context|exceed_context_size", re.IGNORECASE)
_MISSING = re.compile(r"model ['\"].*['\"] not found|not found, try pulling", re.IGNORECASE)
_MEMORY = re.compile(r"more system memory|out of memory|insufficient memory", re.IGNORECASE)
_OPTION = re.compile(r"option [\\\"']|invalid (?:format|JSON schema)|top_logprobs must", re.IGNORECASE)
_LOG = "the server's log says more (`journalctl -u ollama`, or where `ollama serve` runs)"


class PromptRefused(PromptTooLong):
    """The server refused an over-long prompt; it does not say how long it is."""


def retryable(problem: BaseException) -> bool:
    """Tell whether the same request may succeed in a moment.

    No connection, a busy server (429, 503), a runner that died and is started again (500, 502), a broken
    connection, a reply that ended early; never a time-out, which has cost its minutes, nor what the server refuses.
    """
    return bool(getattr(problem, "retryable", False))


@contextmanager
def explained(url: str, timeout_s: float, whole_s: float) -> Iterator[None]:
    """Turn the errors of a connection into ours.

    Args:
        url: the server's address.
        timeout_s: the longest silence, to print.
        whole_s: how long the reply may last in all, to print.
    """
    try:
        yield
    except (httpx.ConnectError, httpx.ConnectTimeout) as problem:
        raise ServerDown(
            f"No Ollama server answers at {url} ({one_line(problem)}). Start it with `ollama serve`, or say where it "
            "is with OLLAMA_HOST=HOST:PORT"
        ) from None
    except httpx.TimeoutException:
        raise TimedOut(
            f"The Ollama server at {url} said nothing for {timeout_s:g} s. It may be loading a large model or reading "
            "a long prompt: allow more with --option timeout_s=1800, or take a smaller model"
        ) from None
    except TimeoutError:
        raise TimedOut(
            f"The Ollama server at {url} did not end its reply within {whole_s:g} s. Ask for a shorter one "
            f"(--option num_predict=512), or allow more with --option {_limit(timeout_s, whole_s)}"
        ) from None
    except httpx.TransportError as problem:
        broken = ServerFailed(f"The connection to the Ollama server at {url} broke off ({one_line(problem)}); {_LOG}")
        broken.retryable = True
        raise broken from None
    except ImportError as problem:
        raise (proxy_problem(problem, url) or problem) from None
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as problem:  # ValueError: NaN, half a surrogate pair
        raise ModelError(f"The Ollama server at {url} could not be asked ({one_line(problem)})") from None


def _limit(timeout_s: float, whole_s: float) -> str:
    """Return the option that bounded a reply, raised: replies that are no streams end within the longest silence."""
    return f"{'timeout_s' if whole_s == timeout_s else 'deadline_s'}={3 * whole_s:g}"


def decoded(text: str, url: str) -> dict[str, Any]:
    """Return a reply's JSON object.

    Raises:
        CutReply: it breaks off.
        GarbledReply: it is something else.
    """
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if isinstance(value, dict):
        return value
    if value is None and text.startswith("{"):
        raise CutReply(f"A reply of the Ollama server at {url} broke off after {text[-40:]!r}; {_LOG}")
    raise GarbledReply(
        f"What answers at {url} does not speak as Ollama does: found {text[:60]!r}, expected a JSON object. Check "
        "OLLAMA_HOST, and any proxy between"
    )


def failure(status: int, text: str, url: str, model: str, installed: Sequence[str] | None) -> Exception:
    """Return the error that a status and its body mean.

    Args:
        status: HTTP status; 500 for an error in the middle of a stream.
        text: the body.
        url: the server's address.
        model: what was asked for.
        installed: the models that the server has, where known.
    """
    said = _message(text)
    if status == 404 and _MISSING.search(said):
        return model_missing(model, url, installed)
    if _TOO_LONG.search(said):
        return PromptRefused(said)
    if "does not support" in said:
        return Unsupported(f"ollama:{model}: the server says {said!r}; leave that out, or take another model")
    if _OPTION.search(said):
        return OptionError(f"ollama:{model}: the server refuses a setting: {said}")
    if status in (429, 503):
        return ServerBusy(
            f"The Ollama server at {url} is busy (HTTP {status}: {said}). Ask less at once, or give it a longer queue "
            "with OLLAMA_MAX_QUEUE"
        )
    if status >= 500:
        return _broken(status, said, url, model)
    if status == 401:
        return ModelError(f"The Ollama server at {url} refused access (HTTP 401: {said}); set OLLAMA_API_KEY")
    if 300 <= status < 400:
        return GarbledReply(f"The Ollama server at {url} is at another address now; set OLLAMA_HOST={said}")
    if status == 404:
        return GarbledReply(f"What answers at {url} has no such route ({said}); check OLLAMA_HOST, or update Ollama")
    return ModelError(f"The Ollama server at {url} refused the request (HTTP {status}: {said})")


def model_missing(model: str, url: str, installed: Sequence[str] | None) -> ModelNotFound:
    """Say that a model is not there, how to get it, and what is there."""
    has = "" if installed is None else f" It has: {', '.join(installed) or 'no model yet'}"
    return ModelNotFound(f"The model {model!r} is not on the Ollama server at {url}. Run `ollama pull {model}`.{has}")


def _broken(status: int, said: str, url: str, model: str) -> ServerFailed:
    if _MEMORY.search(said):
        return ServerFailed(
            f"ollama:{model} does not fit into memory ({said}). Take a smaller model, or a smaller context with "
            "--option num_ctx=2048"
        )
    problem = ServerFailed(f"The Ollama server at {url} failed on {model} (HTTP {status}: {said}); {_LOG}")
    problem.retryable = status in (500, 502)
    return problem


def _message(text: str) -> str:
    try:
        body = json.loads(text)
    except ValueError:
        body = None
    said = body.get("error") if isinstance(body, Mapping) else None
    if isinstance(said, Mapping):
        said = said.get("message")
    return " ".join(str(said or text or "no message").split())[:300]
