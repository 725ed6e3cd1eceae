"""Labels in running text: which ones are named, and which one a reply means."""

import re
from collections.abc import Sequence

_MARKER = re.compile(
    r"\b(?:answer|label|category|class|topic|classification|sentiment)\b[^:\n]{0,20}(?::|\bis\b)",
    re.IGNORECASE,
)
_THINKING = re.compile(r"<(think|thinking|reasoning)>.*?</\1>", re.DOTALL | re.IGNORECASE)


def mentioned(text: str, labels: Sequence[str]) -> list[str]:
    """Return the labels that stand in `text` as words, in order of their first mention.

    Longer labels are looked for first and their place is used up, so that "hate" is not found
    inside "no hate". Case and the amount of white space do not matter.
    """
    first: dict[str, int] = {}
    for label in sorted(labels, key=len, reverse=True):
        words = r"\s+".join(re.escape(word) for word in label.split())
        pattern = re.compile(rf"(?<!\w){words}(?!\w)", re.IGNORECASE)
        if match := pattern.search(text):
            first[label] = match.start()
            text = pattern.sub(lambda found: "\0" * len(found.group()), text)
    return sorted(first, key=lambda label: first[label])


def parse_label(reply: str, labels: Sequence[str]) -> str | None:
    """Return the one label that a reply means, or None when it names none or several.

    Looked at in this order, and the first place that names exactly one label decides: what follows
    the last "answer:" or "the label is", the first line, the last line, the whole reply. Markup,
    quotes and closed thinking blocks do not matter. A reply that lists all labels means none.
    """
    text = re.sub(r"[*_`\"“”]+", " ", _THINKING.sub(" ", reply)).strip()
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        return None
    after = _MARKER.split(text)
    places = [after[-1].strip().split("\n", 1)[0]] if len(after) > 1 else []
    for place in [*places, lines[0], lines[-1], text]:
        found = mentioned(place, labels)
        if len(found) == 1:
            return found[0]
    return None
