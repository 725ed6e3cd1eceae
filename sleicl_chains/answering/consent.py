"""What a file from somebody else must not decide: where questions, keys and money go.

A file may name a model and say how it answers. What leaves this machine, or costs money, the user names again.
"""

import math
import shlex
from collections.abc import Mapping
from typing import Any

from sleicl_chains.errors import RecipeRefused
from sleicl_chains.models.secrets import without_secrets

_NUMBERS = frozenset(
    "n_ctx num_ctx num_batch num_keep max_tokens num_predict temperature seed top_k top_p min_p typical_p "
    "repeat_last_n repeat_penalty presence_penalty frequency_penalty threads num_thread num_gpu main_gpu "
    "timeout timeout_s logprobs top_logprobs use_mmap reasoning".split()
)
"""Options that a recipe may hold as a number, true, false or nothing: how long, how random, how much memory."""
_WORDS = frozenset(("reasoning", "reasoning_effort"))
"""Options that a recipe may hold as a short word."""
_ADDRESSES = ("base_url", "openai_api_base", "endpoint", "azure_endpoint", "api_base", "host")
_LARGEST = 1e9
_LONGEST = 200


def plain_options(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return those options that a file may hold: no address, client, proxy, header or body is among them."""
    return {name: value for name, value in found.items() if _is_plain(name, value)}


def _is_plain(name: str, value: object) -> bool:
    if isinstance(value, str):
        return name in _WORDS and len(value) <= 20 and value.isalnum()
    return name in _NUMBERS and (
        value is None or (isinstance(value, int | float) and math.isfinite(value) and abs(value) <= _LARGEST)
    )


def address_in(found: Mapping[str, Any]) -> str:
    """Return the address among options, without user name and password; empty if there is none."""
    given = next((found[name] for name in _ADDRESSES if found.get(name)), "")
    return str(without_secrets(str(given)))[:_LONGEST]


def stays_here(name: str, base_url: str | None = None) -> bool:
    """Say whether asking the model or embeddings of a name sends nothing off this machine.

    Args:
        name: as `weak_model` or `embedder` takes it.
        base_url: the user's own address; for Ollama `$OLLAMA_HOST` by default.

    Raises:
        OptionError: the address is none.
    """
    if name.startswith("embedded:") or name in ("", "wordllama", "minilm"):
        return True
    if not name.startswith("ollama:"):
        return False
    from sleicl_chains.errors import OptionError
    from sleicl_chains.models.ollama.address import server_address

    try:
        is_local = server_address(base_url).is_local
    except OptionError:  # say, a key that would go there in clear
        return False
    return is_local and not is_handed_on(name)


def is_handed_on(name: str) -> bool:
    """Say whether a local Ollama hands a model's questions on to ollama.com, under the account that it has there."""
    return name.lower().endswith(("-cloud", ":cloud"))


def is_own_address(address: str) -> bool:
    """Say whether an address is that of the user's own Ollama, by `$OLLAMA_HOST` or by default."""
    from sleicl_chains.errors import OptionError
    from sleicl_chains.models.ollama.address import server_address

    try:
        return server_address(address).url == server_address().url
    except OptionError:
        return False


def refusal(*, model: str = "", address: str = "", embeddings: str = "") -> RecipeRefused:
    """Return the complaint about what a recipe names and the user has not repeated, with the options that do."""
    named = {"--weak": ("the model", model), "--base-url": ("the address", address),
             "--embeddings": ("the embeddings", embeddings)}  # fmt: skip
    found = " and ".join(f"{what} {value[:_LONGEST]!r}" for what, value in named.values() if value)
    # Quoted: what a stranger wrote may be pasted into a shell.
    repeated = " ".join(f"{option} {shlex.quote(value[:_LONGEST])}" for option, (_, value) in named.items() if value)
    return RecipeRefused(
        f"The recipe names {found}; a file does not decide where questions, keys and money go, so nothing was sent. "
        f"If you want it, repeat it: {repeated} (in Python: solver(recipe, model=..., embeddings=...))"
    )
