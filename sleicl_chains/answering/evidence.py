"""What one pass of the weak model over a question gives, before anybody reads an answer out of it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from sleicl_chains.answers import LabelScores, Mode, Prior

Block = Literal["scores", "state", "vector"]
"""A kind of evidence: the label probabilities, the model's own state, the question's embedding (no language model)."""

EVIDENCE: tuple[Block, ...] = ("scores", "state", "vector")

GROUPS: dict[Mode, tuple[tuple[Block, ...], ...]] = {
    "score": (("scores",),),
    "hidden": (("state",),),
    "fusion": (EVIDENCE,),
    "blend": (("scores",), ("state",), ("vector",)),
}
"""What a mode looks at, a group for each model that is fitted; the other modes read the model's own words."""


@dataclass(frozen=True)
class Observation:
    """The evidence for one question under one prompt."""

    scores: LabelScores | None = None
    state: Sequence[float] = ()
    """The model's state after the question's last token and at the cue, one after the other; (2 x 512,)."""
    vector: Sequence[float] = field(default=(), repr=False)
    """The question's embedding."""
    prompt_tokens: int = 0
    seconds: float = 0.0


def looks_at(mode: Mode, block: Block) -> bool:
    """Say whether a mode looks at a kind of evidence."""
    return any(block in group for group in GROUPS.get(mode, ()))


def needs_labelled_rows(mode: Mode, prior: Prior) -> bool:
    """Say whether a reading is fitted on answers, not on texts alone."""
    return mode in GROUPS and (mode != "score" or prior == "affine")
