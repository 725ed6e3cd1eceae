"""The options of a call, made in one place, so that they are the same in every call and nothing loads a model again."""

from collections.abc import Mapping
from typing import Any

from sleicl_chains.errors import OptionError

LOADING = ("num_ctx", "num_batch", "num_gpu", "main_gpu", "num_thread", "use_mmap")
"""Options whose change makes the server load the model again, which takes seconds to minutes."""
SAMPLING = (
    "num_predict", "temperature", "seed", "stop", "top_k", "top_p", "min_p", "typical_p", "repeat_last_n",
    "repeat_penalty", "presence_penalty", "frequency_penalty", "num_keep",
)  # fmt: skip
_BESIDE = (
    "options", "format", "response_format", "reasoning", "logprobs", "top_logprobs", "keep_alive", "tools", "stream",
    "strict", "model",
)  # fmt: skip
"""What a call may give beside options."""
_WITHOUT_EFFECT = ("mirostat", "mirostat_eta", "mirostat_tau", "tfs_z", "sync_client_kwargs", "async_client_kwargs")
"""Fields of ChatOllama: options that servers have long ignored, and settings of clients that are not used here."""
ALIASES = {"max_tokens": "num_predict", "timeout": "timeout_s", "n_ctx": "num_ctx", "threads": "num_thread"}
"""Names that LangChain's models have in common, and those of the embedded engine."""
_NEVER_NONE = ("num_ctx", "num_predict", "timeout_s", "deadline_s", "attempts")


def standard_names(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return a model's settings under the names of its fields.

    Raises:
        ValueError: a setting would have no effect.
    """
    named = {ALIASES.get(name, name): value for name, value in given.items()}
    if isinstance(named.get("max_retries"), int):
        named["attempts"] = named.pop("max_retries") + 1
    if named.get("top_logprobs"):
        named.setdefault("logprobs", True)
    if idle := [name for name in _WITHOUT_EFFECT if named.get(name)]:
        raise ValueError(f"{idle[0]} has no effect here; leave it out")
    return {name: value for name, value in named.items() if value is not None or name not in _NEVER_NONE}


def taken_from(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Take the options out of the arguments of a call, named alone or in `options`."""
    named = dict(kwargs.pop("options", None) or {})
    return named | {name: kwargs.pop(name) for name in [*kwargs] if name not in _BESIDE}


def merged(model: object, given: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return a model's own options with those of one call.

    Raises:
        OptionError: there is no such option, or it would load the model again.
    """
    own = {option: getattr(model, option, None) for option in (*LOADING, *SAMPLING)}
    asked = {ALIASES.get(option, option): value for option, value in given.items() if value is not None}
    for option, value in asked.items():
        if option not in own:
            raise OptionError(f"{name} does not know the option {option!r}")
        if option in LOADING and value != own[option]:
            raise OptionError(
                f"{name}: {option}={value} in one call would load the model again; make a model with "
                f"--option {option}={value} for all calls"
            )
    return {option: value for option, value in {**own, **asked}.items() if value is not None}
