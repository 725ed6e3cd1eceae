"""Models by name: `ollama:NAME`, `embedded:...`, `paste:DIR`, `openai:NAME` and all that LangChain knows."""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sleicl_chains._folders import Home
from sleicl_chains.errors import ModelNotFound, OptionError, one_line

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel
    from pydantic import ValidationError

    from sleicl_chains.embedded import EmbeddedModel


_LIST = "see `sleicl models list`"
_NO_CHAT = "here it gets text to continue instead"


def weak_model(name: str, *, home: Home | None = None, **options: Any) -> "BaseChatModel":
    """Return the chat model that answers questions.

    Args:
        name: `ollama:NAME`, `embedded:smollm2` (fetched on first use), `embedded:ollama/NAME` (the file that a
            local Ollama holds), `embedded:PATH.gguf`, or PROVIDER:MODEL as LangChain's `init_chat_model` takes it.
        home: where fetched weights lie.
        options: passed to the model, such as `n_ctx` (Ollama: `num_ctx`), `temperature` or `base_url`.

    Raises:
        ModelNotFound: no model of that name can be had.
        OptionError: the model has no such option.
    """
    if name.startswith("embedded:"):
        return _embedded(name.removeprefix("embedded:"), home or Home.at(), options)
    if name.startswith("paste:"):
        raise ModelNotFound(f"{name}: a pasted model writes grimoires; expected one that answers, say embedded:smollm2")
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
        options: passed to the model, such as `base_url` or `temperature`.

    Raises:
        ModelNotFound: no model of that name can be had.
    """
    if name.startswith("paste:"):
        from sleicl_chains.paste import PasteModel

        if options:
            raise OptionError(f"{name}: a pasted model has no options; found {', '.join(sorted(options))}")
        return PasteModel(folder=Path(name.removeprefix("paste:")))
    if name.startswith("embedded:"):
        return weak_model(name, home=home, **{"max_tokens": 1024, **options})
    if name.startswith("ollama:"):  # a strong model may think, and chooses its own temperature
        defaults: dict[str, Any] = {"num_ctx": 8192, "max_tokens": 4096, "temperature": None, "reasoning": None}
        return _ollama(name.removeprefix("ollama:"), defaults | options)
    return _from_provider(name, {"max_tokens": 4096, **options})


def _embedded(name: str, home: Home, options: dict[str, Any]) -> "BaseChatModel":
    from sleicl_chains.embedded import EmbeddedModel
    from sleicl_chains.weights import KNOWN, fetch

    if unknown := set(options) - set(EmbeddedModel.model_fields) | set(options) & {"name", "path"}:
        raise OptionError(f"embedded:{name}: an embedded model has no {', '.join(sorted(unknown))}; leave it out")
    if name in KNOWN:
        found = sorted(fetch(name, home).glob("*.gguf"))
        if not found:
            raise ModelNotFound(f"embedded:{name}: these weights are no chat model; there is embedded:smollm2")
        return _opened(found[0], home, options, name)
    if name.startswith("ollama/"):
        from sleicl_chains.ollama.address import server_address
        from sleicl_chains.ollama.installed import weights_file
        from sleicl_chains.ollama.rendering import has_template
        from sleicl_chains.ollama.server import Server

        server, model = Server(server_address()), name.removeprefix("ollama/")
        if not model:
            raise ModelNotFound(f"embedded:ollama/ names no model; expected embedded:ollama/NAME, {_LIST}")
        opened = _opened(weights_file(server, model), home, options, name)
        if has_template(server.show(model)) and not opened.has_template:
            warnings.warn(f"embedded:{name}: Ollama has a chat template that the file lacks; {_NO_CHAT}", stacklevel=2)
        return opened
    path = Path(name).expanduser()
    if not path.is_file():
        raise ModelNotFound(
            f"embedded:{name}: found neither packaged weights nor a file of that name; "
            "expected embedded:smollm2 or embedded:PATH.gguf"
        )
    return _opened(path, home, options)


def _opened(path: Path, home: Home, options: dict[str, Any], name: str | None = None) -> "EmbeddedModel":
    from pydantic import ValidationError

    from sleicl_chains.embedded import EmbeddedModel

    try:
        model = EmbeddedModel(name=name, path=path, **options)
    except ValidationError as problem:
        raise _refused(f"embedded:{name or path}", problem) from None
    model._home = home
    return model


def _refused(name: str, problem: "ValidationError") -> OptionError:
    """Say on one line what is wrong with an option."""
    found = problem.errors()[0]
    where = f"{found['loc'][0]}={found['input']!r}: " if found["loc"] else ""
    return OptionError(f"{name}: {where}{found['msg']}")


def _ollama(name: str, options: dict[str, Any]) -> "BaseChatModel":
    from pydantic import ValidationError

    from sleicl_chains.ollama.address import server_address

    server_address()  # the ollama package, imported below, reads OLLAMA_HOST and raises what it likes
    if not name:
        raise ModelNotFound(f"ollama: names no model; expected ollama:NAME, {_LIST}")
    from sleicl_chains.ollama.model import OllamaModel
    from sleicl_chains.ollama.options import ALIASES

    if unknown := set(options) - {*OllamaModel.model_fields, *ALIASES, "max_retries"}:
        raise OptionError(f"ollama:{name}: an Ollama model has no {', '.join(sorted(unknown))}; leave it out")
    try:
        return OllamaModel(model=name, **options)
    except ValidationError as problem:
        raise _refused(f"ollama:{name}", problem) from None


def _from_provider(name: str, options: dict[str, Any]) -> "BaseChatModel":
    from langchain.chat_models import init_chat_model

    if ":" not in name:
        raise ModelNotFound(
            f"{name!r} names no provider; expected, say, embedded:smollm2, ollama:{name}, openai:{name} or paste:DIR"
        )
    if name.startswith("openai:") and options.get("base_url"):
        # LangChain says max_completion_tokens, which some local servers ignore; they know max_tokens.
        options = {**options, "extra_body": {"max_tokens": options["max_tokens"], **options.get("extra_body", {})}}
    try:
        model: BaseChatModel = init_chat_model(name, **options)
        return model
    except ValueError as problem:
        if "model provider" not in str(problem) and "Unsupported provider" not in str(problem):
            raise ModelNotFound(f"{name} could not be opened: {one_line(problem)}") from None
        provider = name.partition(":")[0]
        raise ModelNotFound(
            f"{name}: LangChain knows no provider {provider!r}; expected, say, embedded:smollm2, ollama:NAME, "
            "openai:NAME or paste:DIR"
        ) from None
    except ImportError as problem:
        raise ModelNotFound(f"{name}: {one_line(problem)}") from None
    except Exception as problem:  # each provider has errors of its own, such as a missing key
        raise ModelNotFound(f"{name} could not be opened: {one_line(problem)}") from None
