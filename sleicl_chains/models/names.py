"""Models by name: `ollama:NAME`, `embedded:...`, `paste:DIR`, `openai:NAME` and all that LangChain knows."""

import os
import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from sleicl_chains.errors import (
    KeyMissing,
    ModelError,
    ModelNotFound,
    OptionError,
    SleiclError,
    first_complaint,
    one_line,
)
from sleicl_chains.files import Home
from sleicl_chains.models.addresses import no_proxies, openai_options, proxy_problem
from sleicl_chains.models.weights import READER

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

    from sleicl_chains.models.llamacpp.model import EmbeddedModel

Model = TypeVar("Model", bound="BaseChatModel")

# These think before they write, which counts as a part of the reply; of older models some refuse more than 4,096.
_THINKS = re.compile(
    r"[:/.-](o[1345](-|$)|gpt-(5|oss)|deepseek-(r\d|reasoner)|gemini-(2\.5|[3-9])|qwq|qwen-?3|magistral|grok-[3-9])"
    r"|thinking|reason",
    re.IGNORECASE,
)
_SAY = f"embedded:{READER}"
"""Named where a model is missing."""
_LIST = "see `sleicl models list`"
_NO_CHAT = "here it gets text to continue instead"
_KEY = re.compile(r"credentials|api[ _-]?key", re.IGNORECASE)
_VARIABLE = re.compile(r"\b[A-Z][A-Z0-9]*_[A-Z0-9_]*(?:KEY|TOKEN)\b")


def weak_model(name: str, *, home: Home | None = None, **options: Any) -> "BaseChatModel":
    """Return the chat model that answers questions.

    Args:
        name: `ollama:NAME`, `embedded:qwen2.5-coder-1.5b`, `embedded:qwen2.5-coder-0.5b` or `embedded:smollm2` (fetched
            on first use), `embedded:ollama/NAME` (the file that a local Ollama holds), `embedded:PATH.gguf`, or
            PROVIDER:MODEL as LangChain's `init_chat_model` takes it.
        home: where fetched weights lie.
        options: passed to the model, such as `n_ctx` (Ollama: `num_ctx`), `temperature` or `base_url`.

    Raises:
        ModelNotFound: no model of that name can be had.
        KeyMissing: the provider wants a key, and none is set.
        OptionError: the model has no such option, or a key would be sent unencrypted.
    """
    if name.startswith("embedded:"):
        return _embedded(name.removeprefix("embedded:"), home or Home.at(), options)
    if name.startswith("paste:"):
        raise ModelNotFound(f"{name}: a pasted model writes grimoires; expected one that answers, say {_SAY}")
    if name.startswith("ollama:"):
        return _ollama(name.removeprefix("ollama:"), options)
    # A label or a short answer is wanted: no dice, and no reply without end.
    return _from_provider(name, {"temperature": 0.0, "max_tokens": 64, **options})


def strong_model(name: str, *, home: Home | None = None, **options: Any) -> "BaseChatModel":
    """Return the chat model that writes grimoires.

    Args:
        name: `paste:DIR` for a person who carries prompts and replies, or PROVIDER:MODEL as
            LangChain's `init_chat_model` takes it, such as `openai:gpt-5`.
        home: where fetched weights lie.
        options: passed to the model, such as `base_url` or `temperature`. `max_tokens` holds for thinking and text
            together; by default it is 16,000 for models that are known to think, else 4,096.

    Raises:
        ModelNotFound: no model of that name can be had.
        KeyMissing: the provider wants a key, and none is set.
        OptionError: the model has no such option, or a key would be sent unencrypted.
    """
    if name.startswith("paste:"):
        from sleicl_chains.models.paste import PasteModel

        if options:
            raise OptionError(f"{name}: a pasted model has no options; found {', '.join(sorted(options))}")
        return PasteModel(folder=Path(name.removeprefix("paste:")))
    if name.startswith("embedded:"):
        return weak_model(name, home=home, **{"max_tokens": 1024, **options})
    if name.startswith("ollama:"):  # a strong model may think, and chooses its own temperature
        defaults: dict[str, Any] = {"num_ctx": 8192, "max_tokens": 4096, "temperature": None, "reasoning": None}
        return _ollama(name.removeprefix("ollama:"), defaults | options)
    return _from_provider(name, {"max_tokens": 16_000 if _THINKS.search(name) else 4096, **options})


def _embedded(name: str, home: Home, options: dict[str, Any]) -> "BaseChatModel":
    from sleicl_chains.models.llamacpp.model import EmbeddedModel
    from sleicl_chains.models.weights import KNOWN, fetch

    _check_names(f"embedded:{name}", "an embedded model", options, set(EmbeddedModel.model_fields) - {"name", "path"})
    if name in KNOWN:
        found = sorted(fetch(name, home).glob("*.gguf"))
        if not found:
            raise ModelNotFound(f"embedded:{name}: these weights are no chat model; there is {_SAY}")
        return _of_file(f"embedded:{name}", home, name=name, path=found[0], **options)
    if name.startswith("ollama/"):
        from sleicl_chains.models.ollama.address import server_address
        from sleicl_chains.models.ollama.installed import weights_file
        from sleicl_chains.models.ollama.rendering import has_template
        from sleicl_chains.models.ollama.server import Server

        server, model = Server(server_address()), name.removeprefix("ollama/")
        if not model:
            raise ModelNotFound(f"embedded:ollama/ names no model; expected embedded:ollama/NAME, {_LIST}")
        path = weights_file(server, model)
        opened = _of_file(f"embedded:{name}", home, name=name, path=path, **options)
        if has_template(server.show(model)) and not opened.has_template:
            warnings.warn(f"embedded:{name}: Ollama has a chat template that the file lacks; {_NO_CHAT}", stacklevel=2)
        return opened
    path = Path(name).expanduser()
    if not os.path.isfile(path):
        raise ModelNotFound(
            f"embedded:{name}: found neither packaged weights nor a file of that name; "
            f"expected {_SAY} or embedded:PATH.gguf"
        )
    return _of_file(f"embedded:{name}", home, path=path, **options)


def _of_file(called: str, home: Home, **options: Any) -> "EmbeddedModel":
    from sleicl_chains.models.llamacpp.model import EmbeddedModel

    model = _opened(called, EmbeddedModel, **options)
    model._home = home  # where the digest of its file is remembered
    return model


def _ollama(name: str, options: dict[str, Any]) -> "BaseChatModel":
    from sleicl_chains.models.ollama.address import check_environment

    check_environment()  # the ollama package, imported below, reads OLLAMA_HOST and raises what it likes
    if not name:
        raise ModelNotFound(f"ollama: names no model; expected ollama:NAME, {_LIST}")
    with no_proxies():  # it makes a client of its own, which is never used and fails over a SOCKS proxy
        from sleicl_chains.models.ollama.model import OllamaModel
    from sleicl_chains.models.ollama.options import ALIASES

    known = {*OllamaModel.model_fields, *ALIASES, "max_retries"} - {"name", "model"}
    _check_names(f"ollama:{name}", "an Ollama model", options, known)
    return _opened(f"ollama:{name}", OllamaModel, model=name, **options)


def _check_names(name: str, kind: str, options: dict[str, Any], known: set[str]) -> None:
    """Refuse options that a model lacks, and those that its name decides."""
    if unknown := set(options) - known:
        raise OptionError(f"{name}: {kind} has no {', '.join(sorted(unknown))}; leave it out")


def _opened(called: str, kind: type[Model], /, **options: Any) -> Model:
    """Open a model; `called` is what the user called it."""
    from pydantic import ValidationError

    try:
        return kind(**options)
    except ValidationError as problem:
        first = first_complaint(problem)
        where = f"{first.path[0]}={first.found}: " if first.path else ""
        raise OptionError(f"{called}: {where}{first.wanted}") from None


def _from_provider(name: str, options: dict[str, Any]) -> "BaseChatModel":
    from langchain.chat_models import init_chat_model

    if ":" not in name:
        raise ModelNotFound(
            f"{name!r} names no provider; expected, say, {_SAY}, ollama:{name}, openai:{name} or paste:DIR"
        )
    if name.startswith("openai:") and options.get("base_url"):
        # LangChain says max_completion_tokens, which some local servers ignore; they know max_tokens.
        options = {**options, "extra_body": {"max_tokens": options["max_tokens"], **options.get("extra_body", {})}}
    try:
        if name.startswith("openai:"):
            options = openai_options(options)
            if "http_client" in options:  # else langchain-openai says that these set the proxies aside, as they should
                options.setdefault("http_socket_options", ())
        model: BaseChatModel = init_chat_model(name, **options)
        return model
    except SleiclError:
        raise
    except Exception as problem:  # each provider has errors of its own, such as a missing key
        raise not_opened(name, problem) from None


def not_opened(name: str, problem: Exception) -> ModelError:
    """Return what the complaint of LangChain or of a provider's client means."""
    said = one_line(problem).rstrip(".")
    if socks := proxy_problem(problem, name):
        return socks
    if isinstance(problem, ImportError):
        return ModelNotFound(f"{name}: {said}")
    if isinstance(problem, ValueError) and ("model provider" in said or "Unsupported provider" in said):
        return ModelNotFound(
            f"{name}: LangChain knows no provider {name.partition(':')[0]!r}; expected, say, {_SAY}, "
            "ollama:NAME, openai:NAME or paste:DIR"
        )
    if _KEY.search(said):
        return _key_missing(name, said)
    return ModelNotFound(f"{name} could not be opened: {said}")


def _key_missing(name: str, said: str) -> KeyMissing:
    if name.startswith("openai:"):
        return KeyMissing(
            f"{name} needs a key: set OPENAI_API_KEY. A server of your own needs none; say where it is with "
            "--base-url http://127.0.0.1:8080/v1 (embeddings: OPENAI_BASE_URL)"
        )
    variable = _VARIABLE.search(said)
    return KeyMissing(f"{name} needs a key: set {variable[0]}" if variable else f"{name} needs a key: {said}")
