"""How likely the engine's model holds given tokens to be next: exactly, however unlikely they are.

The engine lists the likeliest tokens alone, and takes a bias for any token's logit. So the tokens that are wanted are
lifted onto the list, and what the lift did to their probabilities is taken back by the softmax's own formula.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sleicl_chains.errors import ModelError
from sleicl_chains.models.llamacpp.engine import Engine
from sleicl_chains.models.weights import fetched_again

Start = list[str | int]
"""A prompt as the engine takes it: texts, whose control tokens are meant as such, and tokens."""

_BIAS = 10.0
"""Added to logits so that tokens come into the list, and others stay in it."""
_ALONE = 100.0
"""Added to logits so that no other token is left any probability."""
_GAPS = (15.0, 30.0, 45.0)
"""Tried in turn: how far below the drawn token the wanted ones are held; wider where one was drawn all the same."""


@dataclass(frozen=True)
class Masses:
    """Probabilities of tokens, and what they were read from."""

    shares: dict[int, float]
    coverage: float
    """The tokens' share of all next tokens, 0 to 1."""


@dataclass
class NextTokens:
    """Asks an engine for the tokens after a prompt, and counts what that costs."""

    engine: Engine
    name: str
    """Of the model, for complaints."""
    path: Path
    requests: int = 0
    prompt_tokens: int = 0
    """Read in all requests together."""

    def among_themselves(self, start: Start, tokens: Sequence[int]) -> Masses:
        """Return the probabilities of tokens among themselves; one request, rarely more."""
        # 1. Lift the tokens. A bias b on the logits of tokens of joint probability m makes of it
        #    s = e^b m / (1 - m + e^b m), and leaves their ratios alone.
        found = self._biased(start, tokens, _BIAS, _listed_for(tokens))
        if found is not None:
            # 2. Solve for m: m = s / (e^b (1 - s) + s).
            lifted = sum(found.values())
            coverage = lifted / (math.exp(_BIAS) * max(0.0, 1 - lifted) + lifted) if lifted else 0.0
            # 3. Where one is too unlikely even so, leave nothing else on the list.
            if len(found) < len(tokens):
                found = self._biased(start, tokens, _ALONE, len(tokens))
        if found is None:  # 4. The engine kept its list back: compare with a token that it does show.
            found = self._beside_drawn(start, tokens)
            coverage = sum(found.values())
        total = sum(found.values())
        shares = {token: found.get(token, 0.0) / total for token in tokens}
        return Masses(shares, min(1.0, coverage))

    def among_all(self, start: Start, tokens: Sequence[int]) -> Masses:
        """Return the probabilities of tokens among all, at most 1 together; three requests or more."""
        found = self._beside_drawn(start, tokens)
        total = max(1.0, sum(found.values()))  # above 1 by rounding alone
        return Masses({token: share / total for token, share in found.items()}, 1.0)

    def logits(self, start: Start, tokens: Sequence[int]) -> list[float]:
        """Return the logits of tokens that are whole text, less their mean."""
        found = self._biased(start, tokens, _ALONE, len(tokens))
        assert found is not None, "these tokens are whole text"
        logits = [math.log(max(found.get(token, 0.0), 1e-30)) for token in tokens]
        mean = sum(logits) / len(logits)
        return [logit - mean for logit in logits]

    def _biased(self, start: Start, tokens: Sequence[int], bias: float, alternatives: int) -> dict[int, float] | None:
        """Return the next token's probabilities with some tokens lifted.

        None where the token that the engine drew is a piece of a character: it
        keeps that one back until the character is whole, and its alternatives with it.
        """
        listed = self._listed(start, dict.fromkeys(tokens, bias), alternatives, biased=True)
        if listed is None:
            return None
        shares = {entry["id"]: entry["prob"] for entry in listed}
        return {token: shares[token] for token in tokens if token in shares}

    def _beside_drawn(self, start: Start, tokens: Sequence[int]) -> dict[int, float]:
        """Return the probabilities of tokens among all, by comparing them with one that is whole text."""
        # 1. Choose the token to compare with, whose own probability p is given without any bias.
        drawn = self._whole_text(start, tokens)
        # 2. Have it drawn, the wanted ones held g below it: one of probability q is listed with q e^-g / p of what
        #    the drawn one has.
        for gap in _GAPS:
            bias = {drawn["id"]: _ALONE} | dict.fromkeys(tokens, _ALONE - gap)
            listed = self._listed(start, bias, _listed_for(tokens), biased=True)
            if listed is not None:
                break
        else:
            raise ModelError(f"{self.name}: the engine gave no probabilities for the tokens {tokens}")
        # 3. Solve for q.
        shares = {entry["id"]: entry["prob"] for entry in listed}
        unit = math.exp(drawn["logprob"] + gap) / shares[drawn["id"]]
        return {token: shares.get(token, 0.0) * unit for token in tokens}

    def _whole_text(self, start: Start, tokens: Sequence[int]) -> dict[str, Any]:
        """Return the likeliest other token that is whole text, as it is listed without a bias."""
        plain = self.engine.tokens("a", special=False)[-1]
        # Twice: a prompt that is in the cache is evaluated by its last token, a new one at once, and after pieces of
        # characters their logits differ by up to .08. What is compared must come from one kind of evaluation.
        for _ in range(2):
            listed = self._listed(start, {plain: _ALONE}, _listed_for(tokens), biased=False)
        assert listed is not None
        found = next((entry for entry in listed if entry["id"] not in tokens and _is_whole(entry)), None)
        if found is None:
            raise ModelError(f"{self.name} shows no next token that is text, so labels cannot be scored here")
        return found

    def _listed(
        self, start: Start, bias: Mapping[int, float], alternatives: int, *, biased: bool
    ) -> list[dict[str, Any]] | None:
        """Return the likeliest next tokens; None where the engine keeps them back.

        `biased` says whether their probabilities are given with the bias or without, then as logarithms.
        """
        reply = self.engine.post("/completion", {
            # A list of texts alone would be several prompts.
            "prompt": start[0] if len(start) == 1 else start,
            "n_predict": 1, "cache_prompt": True, "temperature": 1.0, "samplers": [], "seed": 0,
            "post_sampling_probs": biased, "n_probs": alternatives, "logit_bias": [*map(list, bias.items())],
            "response_fields": ["completion_probabilities", "tokens_evaluated", "timings"],
        })  # fmt: skip
        found, read = reply.get("completion_probabilities"), reply["tokens_evaluated"]
        self.requests, self.prompt_tokens = self.requests + 1, self.prompt_tokens + read
        if not found:
            return None
        listed = found[0]["top_probs"] if biased else [*found[0]["top_logprobs"], found[0]]
        if any(entry["prob" if biased else "logprob"] is None for entry in listed):
            raise ModelError(f"{self.path}: it gives probabilities that are no numbers; {fetched_again(self.path)}")
        return listed


def _listed_for(tokens: Sequence[int]) -> int:
    return max(64, 4 * len(tokens))


def _is_whole(entry: Mapping[str, Any]) -> bool:
    """Tell whether a listed token is text and no piece of a character."""
    try:
        return bool(bytes(entry["bytes"]).decode().strip())
    except UnicodeDecodeError:
        return False
