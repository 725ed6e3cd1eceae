"""The settings of a chain as digits, so that a run goes on only with the chains that it began with."""

import json
import re
from collections.abc import Mapping
from functools import partial
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.load.serializable import Serializable
from langchain_core.runnables import Runnable, RunnableLambda
from langchain_core.runnables.base import RunnableBindingBase

from sleicl_chains.answering.metadata import metadata_of
from sleicl_chains.answers import Answer
from sleicl_chains.hashes import short_hash
from sleicl_chains.models.identity import identity


def arm_name(chain: Runnable[str, Answer]) -> str:
    """Return the name under which a chain stands in the table."""
    return str(metadata_of(chain).get("arm") or chain.get_name())


def settings_of(chain: Runnable[str, Answer]) -> str:
    """Return a digest of a chain's settings; a run goes on only where it is the same.

    A chain of someone else's is told by its parts: models by their identity, a function by its name or text, but not
    by what it calls. An Ollama server is asked which weights it has.
    """
    return str(metadata_of(chain).get("settings") or _digits(json.dumps(_told(chain), sort_keys=True)))


def former_settings(chain: Runnable[str, Answer]) -> str:
    """Return the digest of versions up to 0.1.0; it changes from run to run where a `repr` has a memory address."""
    return str(metadata_of(chain).get("settings") or _digits(repr(chain)))


def _digits(text: str) -> str:
    return short_hash(text)


def _told(part: object, above: tuple[int, ...] = ()) -> Any:
    """Return a part of a chain as JSON data that is the same in each process and other for other settings."""
    if isinstance(part, Runnable) and (settings := metadata_of(part).get("settings")):
        return settings
    if isinstance(part, BaseChatModel):
        return identity(part)
    if id(part) in above:  # a function may call the chain that it is in
        return type(part).__name__
    told = partial(_told, above=(*above, id(part)))
    if isinstance(part, RunnableBindingBase):
        return [told(part.bound), told(part.kwargs), told(part.config.get("configurable", {}))]
    if isinstance(part, RunnableLambda):
        return [_printed(part), *map(told, part.deps)]
    if isinstance(part, Serializable):  # sequences, prompts, parsers
        return [type(part).__name__, {name: told(getattr(part, name)) for name in type(part).model_fields}]
    if isinstance(part, Mapping):
        return {str(name): told(item) for name, item in part.items()}
    if isinstance(part, list | tuple):
        return [told(item) for item in part]
    return sorted(map(_printed, part)) if isinstance(part, set | frozenset) else _printed(part)


def _printed(part: object) -> str:
    return re.sub(r"\b0x[0-9a-fA-F]+\b", "", repr(part))
