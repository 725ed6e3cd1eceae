"""What the model's turn begins with when labels are scored; they follow right after it."""

from collections.abc import Callable, Sequence

CUE = "Answer:"
"""The cue where all labels are in sight, and the first to be tried where they are not."""

CUES = (CUE, "Category:", "Label:", "The answer is")
"""Tried where only the likeliest tokens are in sight."""

CUE_TEXTS = 6
"""Texts that each cue is tried on; one weak call each, once an arm."""


def choose_cue(covered: Callable[[str, str], float], texts: Sequence[str]) -> str:
    """Return the cue after which the labels hold the most probability, on average over unlabelled texts.

    Args:
        covered: gives for a cue and a text the probability of all labels in sight; one weak call.
        texts: the first six are used; without any, the first cue is taken.
    """
    tried = list(texts[:CUE_TEXTS])
    if not tried:
        return CUE
    return max(CUES, key=lambda cue: sum(covered(cue, text) for text in tried))
