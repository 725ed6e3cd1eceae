"""Control tokens in what a user, a row or a grimoire says, kept apart from those that a template writes.

`<|im_end|>` in a question would end the turn, since tokenizers do not ask who wrote it. So it is set between two marks
when the prompt is rendered, and what stands between marks is read as plain text when the prompt is tokenized.
"""

import re

MARK = "\ufdd0"
"""Not a character: Unicode leaves it to programs. The model never sees it."""
_BEGINNINGS = "<["
_USUAL = re.compile(
    r"<\|[^|<>\s]{1,40}\|>|</?s>|<(?:bos|eos|pad|unk)>|<(?:start|end)_of_turn>|\[/?INST\]|<｜[^｜<>]{1,40}｜>"
)


def may_hold_control(text: str) -> bool:
    """Tell whether a text may hold a control token, or the mark; in all known vocabularies they begin with < or [."""
    return MARK in text or any(character in text for character in _BEGINNINGS)


def usual_control(text: str) -> str:
    """Return what looks like a control token of some model in a text; empty where nothing does."""
    found = _USUAL.search(text)
    return found[0] if found else ""


def without_marks(text: str) -> str:
    """Return a text of somebody else's without marks, so that it cannot end one that is set here."""
    return text.replace(MARK, "\ufffd")


def marked(text: str, words: set[str]) -> str:
    """Return a text with each of `words` between marks, the longest where they overlap."""
    either = "|".join(map(re.escape, sorted(words, key=len, reverse=True)))
    return re.sub(f"(?:{either})+", lambda found: MARK + found[0] + MARK, text) if words else text


def parts(prompt: str) -> list[tuple[str, bool]]:
    """Return the pieces of a prompt, each with whether control tokens in it are meant as such."""
    return [(piece, at % 2 == 0) for at, piece in enumerate(prompt.split(MARK))]
