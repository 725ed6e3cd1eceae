"""Labels in running text: which ones are named, and which one a reply means."""

import re
from collections.abc import Sequence
from unicodedata import normalize

# Scripts without spaces between words do not count as letters: 体育 is a word in 答案是体育 as well.
_LETTER = r"[^\W_\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7a3]"
# A label found in a reply becomes one character of this range, so that all that follows reads single characters.
_FIRST, _LAST = "\U000f0000", "\U000ffffd"
_LABEL = f"[{_FIRST}-{_LAST}]"

_ALIKE = (
    dict.fromkeys(map(ord, "\u2018\u2019\u201a\u201b\u2032\u02bc\u0060\u00b4"), "'")
    | dict.fromkeys(map(ord, "\u201c\u201d\u201e\u201f\u2033"), '"')
    | dict.fromkeys(map(ord, "\u2010\u2011\u2012\u2013\u2014\u2015\u2212"), "-")
    # Soft hyphens, zero-width signs, marks of direction, and whether a sign is drawn as a picture.
    | dict.fromkeys(map(ord, "\u00ad\u200b\u200c\u200d\u200e\u200f\u2060\ufeff\ufe0e\ufe0f"))
)

_THINKING = re.compile(r"<(think|thinking|reasoning)>.*?(?:</\1>|\Z)|^.*</(?:think|thinking|reasoning)>", re.DOTALL)
_DENIED = re.compile(
    r"(?:\b(?:not|no|non|never|neither|nor|nicht|kein\w*|pas|without|unlike|rather than|instead of|opposed to)"
    rf"|n['’]t)[ -]+(?:(?!but\b|doubt\b)\w+[ ]+){{0,3}}{_LABEL}(?:,? (?:or|nor) {_LABEL})*|[不非没無无]是?{_LABEL}"
)
_EXPLANATION = re.compile(r"\b(?:explanation|reason|reasoning|rationale|justification)\W{0,4}:")
_WHAT = r"(?:answer|label|category|class|topic|classification|sentiment)\b[^:\n]{0,20}(?::|\bis\b)"
_FINAL = re.compile(rf"\bfinal\W+{_WHAT}")
_CUE = re.compile(rf"\b{_WHAT}|\b(?:therefore|thus|hence|overall)\b")
_NUMBERING = r"\W*(?:\w[.):]\W*)?"


def fold(text: str) -> str:
    """Return `text` without differences of case and white space, to tell duplicates."""
    return " ".join(text.casefold().split())


def plain(text: str) -> str:
    """Return `text` as labels are compared: without case, invisible characters, and kinds of quotes and dashes."""
    folded = normalize("NFKC", text).casefold()
    return normalize("NFKC", folded.translate(_ALIKE)).strip()


def mentioned(text: str, labels: Sequence[str]) -> list[str]:
    """Return the labels that stand in `text` as words, in order of their first mention.

    Where labels overlap the longest counts, so that "hate" is not found inside "no hate". Case, and
    whether spaces, hyphens or underscores stand between words, do not matter.
    """
    return [labels[place] for place in _places(_coded(text, labels))]


def prefixed(labels: Sequence[str]) -> list[tuple[str, str]]:
    """Return each label that begins another, with the first that it begins: ("hate", "hate speech").

    Where such labels are scored, the shorter has what the longer ones leave of all that may follow it.
    """
    found = ((one, next((other for other in labels if other != one and other.startswith(one)), "")) for one in labels)
    return [(one, other) for one, other in found if other]


def parse_label(reply: str, labels: Sequence[str]) -> str | None:
    """Return the one label that a reply means, or None when it names none or several.

    Looked at in this order: lines that hold nothing else, what follows "final answer:", what follows
    "answer:" and the like, sentences that hold nothing else, the first and the last line, the whole
    reply. The first of these that names a label decides, if it names no other. Thinking, questions,
    explanations after the answer and labels that are denied ("not Sports") are not read.
    """
    text = _DENIED.sub(" ", _coded(_THINKING.sub(" ", plain(reply)), labels))
    text = "".join(part for part in re.split(r"(?<=[.!?:\n])", text) if not part.endswith("?"))
    before = _EXPLANATION.split(text, maxsplit=1)[0]
    text = before if len(_places(before)) == 1 else text
    lines = [line for line in text.split("\n") if line.strip()]
    sentences = [sentence for line in lines for sentence in re.split(r"(?<=[.!:])\s", line)]
    for passages in (
        filter(_is_bare, lines),
        _after(_FINAL, text),
        _after(_CUE, text),
        filter(_is_bare, sentences),
        [*lines[:1], *lines[-1:]],
        [text],
    ):
        named = {found[0] for found in map(_places, passages) if len(found) == 1}
        if named:
            return labels[named.pop()] if len(named) == 1 else None
    return None


def _coded(text: str, labels: Sequence[str]) -> str:
    """Return the text folded, with a character of its own in the place of each label."""
    places = sorted(range(len(labels)), key=lambda place: -len(labels[place]))
    words = [re.split(rf"\s+|(?<={_LETTER})[_-]+(?={_LETTER})", plain(labels[place]).strip()) for place in places]
    either = "|".join("(" + r"[\s_-]+".join(map(re.escape, parts)) + ")" for parts in words) or "(?!)"
    pattern = rf"(?<!{_LETTER})(?<!\d[.,])(?:{either})(?!{_LETTER})(?![.,]\d)"
    text = re.sub(_LABEL, " ", plain(text))
    return re.sub(pattern, lambda found: chr(ord(_FIRST) + places[(found.lastindex or 1) - 1]), text)


def _places(coded: str) -> list[int]:
    """Return which labels are named, each once, in order."""
    return [ord(code) - ord(_FIRST) for code in dict.fromkeys(re.findall(_LABEL, coded))]


def _is_bare(line: str) -> bool:
    return re.fullmatch(_NUMBERING, line) is not None


def _after(cue: re.Pattern[str], text: str) -> list[str]:
    """Return the first sentence after each cue."""
    return [re.split(r"(?<=[.!])\s|\n", part.strip(), maxsplit=1)[0] for part in cue.split(text)[1:]]
