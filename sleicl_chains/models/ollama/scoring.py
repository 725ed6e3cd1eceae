"""Label probabilities out of the 20 likeliest next tokens, which is all that Ollama shows.

Every token in sight that begins a label and no other counts for it. A token that begins several
("very" of "very positive" and "very negative") is followed: one more request shows how they share it.
A label without a token in sight cannot be likelier than the last one shown; it gets a tenth of that as a
floor and is named in `unseen`, since its score is a guess below a bound and no measurement. It may still be
chosen, where the labels in sight are less likely than usual.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sleicl_chains.errors import GarbledReply
from sleicl_chains.models.abilities import LabelScores

SCORING = 3
"""Counted up when labels are scored differently, so that no journal mixes both."""
ALTERNATIVES = 20
"""Alternatives that an Ollama server gives at most."""
_FLOOR = 0.1
"""Of the last token shown; chosen on training rows (benchmarks/LOG.md)."""
_WORTH_FOLLOWING = 0.01
"""Share of all label mass below which a token of several labels is not followed."""


@dataclass(frozen=True)
class NextTokens:
    """The likeliest next tokens after a prompt, as bytes, with their probabilities."""

    shares: dict[bytes, float]
    prompt_tokens: int

    @property
    def floor(self) -> float:
        """What a token out of sight is taken to have; the last one shown bounds it."""
        return _FLOOR * min(self.shares.values())


Ask = Callable[[str], NextTokens]
"""Returns what may come after a prompt; one model call."""


def read_tokens(reply: Mapping[str, Any]) -> NextTokens:
    """Read a reply to `logprobs`, `top_logprobs`.

    Raises:
        GarbledReply: it holds none.
    """
    try:
        listed = reply["logprobs"][0]["top_logprobs"]
        shares = {_bytes(entry): math.exp(entry["logprob"]) for entry in listed}
    except (KeyError, IndexError, TypeError):
        shares = {}
    if not shares:
        raise GarbledReply(
            "The Ollama server gave no log-probabilities for a token; `sleicl models check` says what it can do"
        )
    return NextTokens(shares, int(reply.get("prompt_eval_count") or 0))


def _bytes(entry: Mapping[str, Any]) -> bytes:
    """Return a token's bytes; its text cannot show a part of a character. Some servers give the text alone."""
    return bytes(entry["bytes"]) if entry.get("bytes") else str(entry["token"]).encode()


def score(ask: Ask, prompt: str, labels: Sequence[str]) -> LabelScores:
    """Score each label as the continuation of a rendered prompt.

    A label follows after one space, unless the prompt ends in white space. One model call, and one more for
    each beginning that labels share.
    """
    gap = "" if not prompt or prompt[-1].isspace() else " "
    seen = _Seen(ask)
    masses = seen.masses(prompt, {label: (gap + label).encode() for label in labels})
    unseen = tuple(label for label in labels if label not in masses)
    first = seen.first
    assert first is not None
    floored = {label: masses.get(label, first.floor) for label in labels}
    total = sum(floored.values())
    return LabelScores(
        probabilities={label: mass / total for label, mass in floored.items()},
        coverage=min(1.0, sum(masses.values())),
        prompt_tokens=seen.prompt_tokens,
        requests=seen.requests,
        unseen=unseen,
    )


class _Seen:
    def __init__(self, ask: Ask) -> None:
        self.ask = ask
        self.requests = self.prompt_tokens = 0
        self.first: NextTokens | None = None

    def masses(self, prompt: str, rest: Mapping[str, bytes]) -> dict[str, float]:
        """Return the probability of each label in sight; `rest` is what of it is still to come after the prompt."""
        tokens = self.ask(prompt)
        self.requests += 1
        self.prompt_tokens += tokens.prompt_tokens
        self.first = self.first or tokens
        own: dict[str, float] = {}
        shared: dict[bytes, float] = {}
        for token, share in tokens.shares.items():
            if not token.strip():
                continue  # white space begins every label and says nothing of any; see below
            begun = [label for label, text in rest.items() if text.startswith(token)]
            if len(begun) == 1:
                own[begun[0]] = own.get(begun[0], 0.0) + share
            elif begun:
                shared[token] = share
        whole = sum(own.values()) + sum(shared.values())
        gap = tokens.shares.get(b" ", 0.0)
        if gap > whole and any(text.startswith(b" ") for text in rest.values()):
            shared[b" "] = gap  # the tokenizer sets the space apart, as some do before digits
        for token, share in shared.items():
            if share >= _WORTH_FOLLOWING * whole:
                for label, part in self._shares(prompt, token, rest).items():
                    own[label] = own.get(label, 0.0) + share * part
        return own

    def _shares(self, prompt: str, token: bytes, rest: Mapping[str, bytes]) -> dict[str, float]:
        """Return how the labels that begin with a token share it: parts that add up to 1, or none.

        A label that ends with the token ("hate", beside "hate speech") has what the others leave.
        """
        inner = {label: text[len(token) :] for label, text in rest.items() if text.startswith(token)}
        try:
            piece = token.decode()
        except UnicodeDecodeError:
            return dict.fromkeys(inner, 1 / len(inner))  # half a character cannot be sent
        found = self.masses(prompt + piece, {label: text for label, text in inner.items() if text})
        ended = [label for label, text in inner.items() if not text]
        if ended:
            return found | {ended[0]: max(0.0, 1.0 - sum(found.values()))}
        total = sum(found.values())
        return {label: mass / total for label, mass in found.items()} if total else {}
