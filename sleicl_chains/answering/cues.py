"""Cues: the words that the model's turn begins with, such as "Answer:", after which each label is scored."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sleicl_chains.models.abilities import LabelScores

CUE_TEXTS = 6
"""Texts that each cue is tried on, once an arm."""
_OUT_OF_SIGHT = 0.2
"""Share of the labels out of sight from which on the question names them; chosen on training rows, see
benchmarks/LOG.md. Where they are in sight anyway, naming them cost accuracy."""


@dataclass(frozen=True)
class Cue:
    """How an answer is asked for."""

    text: str
    """The beginning of the model's turn; empty where the model begins it."""
    lists_labels: bool = False
    """Whether every question names the labels once more."""


NO_CUE = Cue("")
CUE = Cue("Answer:")
"""The cue where all labels are in sight."""
CUES = (CUE, Cue("Category:"), Cue("Label:"), Cue("The answer is"))
"""Tried where only the likeliest tokens are in sight."""
LISTING = tuple(Cue(cue.text, lists_labels=True) for cue in CUES)
"""Tried where too many labels are out of sight even so."""

Scored = Callable[[Cue, str], LabelScores]
"""Scores a text under a cue; one weak call."""


def choose_cue(scored: Scored, texts: Sequence[str]) -> Cue:
    """Return the cue after which the labels hold most probability, on average over unlabelled texts.

    Where too many labels are out of sight under it, the cues are tried again with the labels named in the
    question. Six of the texts are used, spread over all. Scores each of them four times, or eight; without any text
    the first cue is taken, and the labels named.
    """
    # "Most probability" is the sum of p(label) over all labels; what is left went to tokens that name none.
    tried = texts[:: max(1, len(texts) // CUE_TEXTS)][:CUE_TEXTS]  # from all over: they may be grouped by label
    if not tried:
        return LISTING[0]
    # First without naming the labels, which costs accuracy on a model that finds them by itself.
    best, unseen = _best(scored, CUES, tried)
    return best if unseen <= _OUT_OF_SIGHT else _best(scored, LISTING, tried)[0]


def _best(scored: Scored, cues: Sequence[Cue], texts: Sequence[str]) -> tuple[Cue, float]:
    """Return the cue of most label mass, and the share of labels that are out of sight under it."""
    found = {cue: [scored(cue, text) for text in texts] for cue in cues}
    best = max(found, key=lambda cue: sum(scores.coverage for scores in found[cue]))
    hidden = [len(scores.unseen) / len(scores.probabilities) for scores in found[best]]
    return best, sum(hidden) / len(hidden)
