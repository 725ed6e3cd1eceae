"""What one pass of the weak model over a question gives, before anybody reads an answer out of it."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from sleicl_chains.models.abilities import LabelScores


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
