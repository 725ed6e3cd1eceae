"""The model of a chat: the one that the user names, or else the best one that this machine has."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psutil

from sleicl_chains.answering.consent import is_handed_on
from sleicl_chains.errors import ModelError, ModelNotFound
from sleicl_chains.files import Home
from sleicl_chains.models.names import weak_model
from sleicl_chains.models.reading import Reading, reading_of
from sleicl_chains.models.weights import KNOWN, READER, is_fetched

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

    from sleicl_chains.models.ollama.installed import Installed

CONTEXT = 8192
"""Tokens of prompt and reply together: a guide takes about 600."""
_REPLY = 1024
_FREE = 0.8
"""Share of the free memory that weights may take; the context and the rest of the machine need some."""


@dataclass(frozen=True)
class Choice:
    """A model's name, and what a user should know of it before the first message."""

    name: str
    note: str = ""


def open_chat_model(name: str, home: Home, options: Mapping[str, Any] | None = None) -> "BaseChatModel":
    """Return a model that talks: longer replies than a label, and the temperature that it is meant to have.

    Raises:
        ModelNotFound: no model of that name can be had.
        OptionError: the model has no such option.
    """
    defaults: dict[str, Any] = {"max_tokens": _REPLY}
    if name.startswith("ollama:"):
        defaults |= {"num_ctx": CONTEXT, "temperature": None, "seed": None}
    elif name.startswith("embedded:"):
        defaults |= {"n_ctx": CONTEXT, "temperature": 0.7, "seed": -1}  # another one each time
    return weak_model(name, home=home, **{**defaults, **(options or {})})


def default_model(home: Home, base_url: str | None = None) -> Choice | None:
    """Return the largest chat model of the user's Ollama that fits into memory and is not known to be unable to read.

    None that Ollama hands on to a cloud: such a model the user must name. Where Ollama has none, the packaged model
    that reads, if it was fetched before; None where that is not here.
    """
    free = psutil.virtual_memory().available * _FREE / 1e6
    here = [one for one in _installed(base_url) if _talks(one) and not is_handed_on(one.name)]
    able = [one for one in here if one.megabytes <= free and _may_read(one, home)]
    if able:
        best = max(able, key=lambda one: one.megabytes)
        unknown = reading_of(best.weights, home) is None
        note = f"reading not checked: sleicl models check ollama:{best.name}" if unknown else ""
        return Choice(f"ollama:{best.name}", note)
    return Choice(f"embedded:{READER}") if is_fetched(READER, home) else None


def no_model() -> ModelNotFound:
    """Return what to raise where `default_model` has none: how to get one."""
    size = f"{KNOWN[READER].megabytes / 1000:.1f} GB"
    return ModelNotFound(
        f"No chat model is on this machine: run `ollama pull NAME`, or `sleicl models fetch {READER}` ({size}), "
        "or name one with --weak"
    )


@dataclass(frozen=True)
class Offer:
    """A chat model of this machine."""

    name: str
    megabytes: int
    reading: Reading | None
    """How well it follows guides, where that is known."""


def chat_models(home: Home, base_url: str | None = None) -> list[Offer]:
    """Return the models of this machine that talk: those of the local Ollama, then the packaged ones that are here.

    Where no Ollama answers, it has none.
    """
    served = [
        Offer(f"ollama:{one.name}", one.megabytes, reading_of(one.weights, home) if one.weights else None)
        for one in _installed(base_url)
        if _talks(one)
    ]
    packaged = [
        Offer(f"embedded:{name}", weights.megabytes, reading_of(weights.files[0].sha256, home))
        for name, weights in KNOWN.items()
        if weights.files[0].name.endswith(".gguf") and is_fetched(name, home)
    ]
    return [*served, *packaged]


def _installed(base_url: str | None) -> "list[Installed]":
    from sleicl_chains.models.ollama.address import server_address
    from sleicl_chains.models.ollama.installed import installed_models
    from sleicl_chains.models.ollama.server import Server

    try:
        return installed_models(Server(server_address(base_url), attempts=1))
    except ModelError:
        return []


def _talks(model: "Installed") -> bool:
    return model.template and "completion" in (model.capabilities or ("completion",))


def _may_read(model: "Installed", home: Home) -> bool:
    known = reading_of(model.weights, home) if model.weights else None
    return known is None or known.follows_guides
