"""Thinking that stands in a reply between tags, apart from the answer.

A tag in the middle of a line may be part of a text, so it counts only where a line begins; `labels.py`, which looks for
one word, is stricter.
"""

import re
from collections.abc import Iterator

_TAGS = "think|thinking|reasoning"
_THOUGHT = re.compile(rf"<({_TAGS})>.*?</\1>", re.DOTALL | re.IGNORECASE)
_OPENED = re.compile(rf"^[ \t]*<({_TAGS})>", re.MULTILINE | re.IGNORECASE)
# A template may have opened the block in the prompt: then everything up to the closing tag is thinking.
_CLOSED = re.compile(rf"\A.*^[ \t]*</({_TAGS})>", re.MULTILINE | re.DOTALL | re.IGNORECASE)


def without_thinking(text: str) -> str:
    """Return a reply's text without its thinking; a block that never ends goes on to the end of the text."""
    rest = finished_thinking(text)
    opened = _OPENED.search(rest)
    return rest[: opened.start()].strip() if opened else rest


def finished_thinking(text: str) -> str:
    """Return a reply's text without the blocks of thinking that are closed."""
    return _CLOSED.sub("", _THOUGHT.sub("", text)).strip()


def unclosed(text: str) -> str:
    """Return the tag of a block that never ends, if there is one."""
    opened = _OPENED.search(text)
    return opened[0].strip() if opened else ""


class ThinkingStream:
    """Tells thinking from the answer while a reply comes in pieces, by tags at the beginning of a line.

    What may be the beginning of a tag is held back until it is known.
    """

    def __init__(self) -> None:
        self._held = ""
        self._tag = ""
        """Name of the block that is open."""
        self._at_line = True
        """Whether what comes next stands at the beginning of a line."""

    def feed(self, piece: str) -> Iterator[tuple[str, bool]]:
        """Yield what is known now: text, and whether it is thinking."""
        self._held += piece
        while self._held:
            mark = _END.format(self._tag) if self._tag else _OPENING
            found = re.search(mark, self._held, re.IGNORECASE) if self._tag else self._opening()
            if not found:
                break
            before, name = self._held[: found.start()], self._tag or found[1].lower()
            if before:
                yield before, bool(self._tag)
            self._held, self._tag = self._held[found.end() :], "" if self._tag else name
            self._at_line = True
        safe = len(self._held) - self._doubtful()
        if safe > 0:
            yield self._told(self._held[:safe])
            self._held = self._held[safe:]

    def end(self) -> Iterator[tuple[str, bool]]:
        """Yield what was held back."""
        if self._held:
            yield self._told(self._held)
        self._held = ""

    def _told(self, text: str) -> tuple[str, bool]:
        self._at_line = text.endswith("\n")
        return text, bool(self._tag)

    def _opening(self) -> "re.Match[str] | None":
        pattern = _OPENING if self._at_line else rf"(?<=\n){_OPENING.removeprefix('^')}"
        return re.search(pattern, self._held, re.IGNORECASE | re.MULTILINE)

    def _doubtful(self) -> int:
        """Return how many of the last characters may be the beginning of a tag."""
        tags = [f"</{self._tag}>"] if self._tag else [f"<{name}>" for name in _TAGS.split("|")]
        tail = self._held[-_LONGEST:].lower()
        lengths = range(min(len(tail), _LONGEST), 0, -1)
        return next((size for size in lengths if any(tag.startswith(tail[-size:]) for tag in tags)), 0)


_OPENING = rf"^[ \t]*<({_TAGS})>"
_END = "</{}>"
_LONGEST = len("</reasoning>")
