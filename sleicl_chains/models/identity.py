"""What tells one model, and one request to it, from others; without secrets."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from operator import attrgetter
from typing import Any

from langchain_core.embeddings import Embeddings
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, BaseMessage, messages_to_dict
from langchain_core.runnables import Runnable
from langchain_core.runnables.base import RunnableBindingBase
from pydantic import BaseModel

from sleicl_chains.models.abilities import own_identity
from sleicl_chains.models.plain import plain
from sleicl_chains.models.secrets import formerly_without_secrets, without_secrets

Model = Runnable[LanguageModelInput, AIMessage]
"""A chat model, or one with bound arguments."""


def request_of(model: Model, messages: Sequence[BaseMessage], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return all that decides a reply as JSON data, without secrets and without ids of runs."""
    return {"model": identity(model), "messages": _sent(messages), "options": without_secrets(plain(options))}


def former_request(model: Model, messages: Sequence[BaseMessage], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the request that versions up to 0.1.0 have written."""
    bared = formerly_without_secrets(plain(options))
    return {"model": former_identity(model), "messages": _sent(messages), "options": bared}


def _sent(messages: Sequence[BaseMessage]) -> list[dict[str, Any]]:
    return [_without_run(message) for message in plain(messages_to_dict(messages))]


def _without_run(message: dict[str, Any]) -> dict[str, Any]:
    """Drop what is not sent to a model; empty values too, since new versions of LangChain add some."""
    unsent = ("id", "response_metadata", "usage_metadata")
    kept = {key: value for key, value in message["data"].items() if key not in unsent and value}
    return {"type": message["type"], "data": kept}


def identity(model: Model) -> dict[str, Any]:
    """Return what tells this model and its settings from others, as JSON data without secrets.

    A model may say so itself by an attribute `identity`. Otherwise it is told by its class, server
    and public fields; `_identifying_params` alone is the same for all models of `ChatOllama`.

    Raises:
        TypeError: `model` is neither a chat model nor one with bound arguments.
    """
    return _told(model, without_secrets, without_secrets)


def former_identity(model: Model) -> dict[str, Any]:
    """Return the identity that versions up to 0.1.0 have written into journals."""
    return _told(model, formerly_without_secrets, lambda own: own)


def _told(model: Model, bared: Callable[[Any], Any], own_bared: Callable[[Any], Any]) -> dict[str, Any]:
    if isinstance(model, RunnableBindingBase):  # before `identity`, which it would pass through
        return {"bound": _told(model.bound, bared, own_bared), "kwargs": bared(plain(model.kwargs))}
    if (own := own_identity(model)) is not None:
        return dict(own_bared(plain(own)))
    if not isinstance(model, BaseChatModel):
        raise TypeError(f"expected a chat model, found {type(model).__qualname__}")
    params = {} if model.is_lc_serializable() else model._identifying_params
    described = {"class": type(model).__name__, "server": _server(model), "params": params, **_fields(model)}
    return dict(bared({key: value for key, value in plain(described).items() if value not in _UNSET}))


_UNSET: tuple[object, ...] = (None, "", [], {})

_UNHEARD = frozenset(
    "async_client async_client_kwargs cache callbacks client client_kwargs custom_get_token_ids disable_streaming "
    "http_async_client http_client http_socket_options include_response_headers max_retries metadata name profile "
    "rate_limiter request_timeout root_async_client root_client sleep stream_chunk_timeout stream_usage streaming "
    "sync_client_kwargs tags timeout validate_model_on_init verbose "
    "i".split()  # how far LangChain's FakeListChatModel has got
)
"""Fields of LangChain's models that the model behind them never hears of."""


def embedder_identity(embeddings: Embeddings) -> dict[str, Any]:
    """Return what tells an embedder and its settings from others, as `identity` does for chat models."""
    own = getattr(embeddings, "identity", None)
    if isinstance(own, Mapping):
        return dict(without_secrets(plain(own)))
    fields = _fields(embeddings) if isinstance(embeddings, BaseModel) else getattr(embeddings, "__dict__", {})
    # Neither decides a vector: how many texts go into a request, and how their tokens are counted.
    told = {name: value for name, value in fields.items() if not name.startswith("_") and name not in _UNHEARD_TEXTS}
    described = {"class": type(embeddings).__qualname__, "server": _server(embeddings), **plain(told)}
    return dict(without_secrets({key: value for key, value in described.items() if value not in _UNSET}))


_UNHEARD_TEXTS = frozenset("chunk_size show_progress_bar show_progress retry_min_seconds retry_max_seconds".split())


def _fields(model: BaseModel) -> dict[str, Any]:
    """Return the settings, without flags left off: a new version may add some and must not buy all again."""
    kept = {}
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        left_off = value is False and field.default is False
        if name not in _UNHEARD and not left_off and not isinstance(value, Iterator):
            kept[name] = value
    return kept


def _server(model: object) -> str | None:
    """Return the address in use, which may come from the environment and then is in no field."""
    for place in (
        "root_client.base_url",
        "_client._client.base_url",
        "client._client.base_url",
    ):  # OpenAI, Ollama, embeddings
        try:
            return str(attrgetter(place)(model))
        except AttributeError:
            continue
    return None
