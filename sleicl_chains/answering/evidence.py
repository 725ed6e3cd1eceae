"""Evidence: what was measured about one question, before an answer is read in it, and the same as numbers to fit on."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from sleicl_chains.answering.readings import Block
from sleicl_chains.answering.shares import LEAST
from sleicl_chains.errors import InputError
from sleicl_chains.models.abilities import LabelScores

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]


@dataclass(frozen=True)
class Observation:
    """The evidence for one question under one prompt."""

    scores: LabelScores | None = None
    state: Sequence[float] = ()
    """The model's state after the question's last token and at the cue, one after the other; (2 x 512,)."""
    vector: Sequence[float] = field(default=(), repr=False)
    """The question's embedding."""
    prompt_tokens: int = 0
    """Read in all requests together."""
    seconds: float = 0.0


def features(seen: Sequence[Observation], blocks: Sequence[Block], labels: Sequence[str]) -> "Array":
    """Return (n_observations, n_features): the blocks side by side, label scores as logarithms less their mean.

    Raises:
        InputError: an observation lacks a block.
    """
    rows = []
    for one in seen:
        parts: dict[Block, Sequence[float]] = {"state": one.state, "vector": one.vector}
        if "scores" in blocks:
            parts["scores"] = log_shares(one, labels)
        if missing := [block for block in blocks if not len(parts[block])]:
            raise InputError(f"an observation lacks its {missing[0]}; it was made for another mode")
        rows.append(np.concatenate([np.asarray(parts[block], dtype=np.float64) for block in blocks]))
    return np.array(rows)


def log_shares(seen: Observation, labels: Sequence[str]) -> list[float]:
    """Return the logarithms of the label probabilities, less their mean."""
    scores = label_shares(seen)
    logs = [math.log(max(scores[label], LEAST)) for label in labels]
    mean = sum(logs) / len(logs)
    return [value - mean for value in logs]


def label_shares(seen: Observation) -> Mapping[str, float]:
    """Return the label probabilities.

    Raises:
        InputError: the observation lacks them.
    """
    if seen.scores is None:
        raise InputError("an observation lacks its scores; it was made for another mode")
    return seen.scores.probabilities
