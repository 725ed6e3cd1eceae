"""What a solver gives back."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

NO_STRONG_ANSWER = "the strong model gave no answer"
"""How the note of a weak answer begins that stays because the strong model, asked for a better one, gave none."""


@dataclass(frozen=True)
class Answer:
    """One answer, with how it was come by. An answer that names no label is not valid and counts as wrong."""

    label: str | None
    """One of the task's labels; None where there is none, or for an open-ended task."""
    text: str
    """The model's own words in the modes `generate` and `schema`; else the label."""
    valid: bool
    arm: str = ""
    mode: str = ""
    prior: str = "none"
    probability: float | None = None
    """That the label is right: of a recipe calibrated on rows that its reader had not seen, else the reader's share.
    None where words are read, and where a strong model answered."""
    scores: Mapping[str, float] = field(default_factory=dict)
    """Every label's share as the reader has it, after the prior was taken off; they add up to 1."""
    coverage: float | None = None
    """The probability that the weak model gave to all labels together before renormalising."""
    unseen: tuple[str, ...] = ()
    """Labels that were out of sight (Ollama shows 20 tokens) and got a floor instead of a measured score."""
    cue: str = ""
    """What the model's turn began with where scores or its state are read."""
    lists_labels: bool = False
    """Whether the question named the labels once more."""
    grimoire: str | None = None
    """Id of the grimoire that was shown."""
    usage: Mapping[str, int] = field(default_factory=dict)
    """`prompt_tokens` and `reply_tokens`, where the model reports them."""
    seconds: float = 0.0
    """What the model took; a call answered from the journal keeps its first figure."""
    note: str = ""
    """What a reader should know: the reply was cut, or why there is none."""
    deferred: bool = False
    """Whether a strong model answered, since the weak one was not sure enough; not where it was asked in vain."""

    def __add__(self, later: "Answer") -> "Answer":
        """Return one answer of two pieces of a stream: their texts one after the other, all else of the later."""
        return replace(later, text=self.text + later.text)

    @property
    def answer(self) -> str | None:
        """The label, or the text of an open-ended task; None when not valid."""
        return (self.label or self.text) if self.valid else None

    def to_dict(self, *, labelled: bool = True) -> dict[str, Any]:
        """Return the object that `sleicl ask --json` prints; `labelled` says whether the task has labels."""
        said = {"label": self.label} if labelled else {"text": self.text}
        return said | {
            "probability": self.probability,
            "valid": self.valid,
            "grimoire": self.grimoire,
            "mode": self.mode,
            "prior": self.prior,
            "usage": dict(self.usage),
            "seconds": round(self.seconds, 4),
            "coverage": self.coverage,
            "unseen": list(self.unseen),
            "note": self.note,
            "deferred": self.deferred,
        }
