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
        while found := self._next_tag():
            yield from self._told(self._held[: found.start()])
            self._held = self._held[found.end() :]
            self._tag, self._at_line = "" if self._tag else found[1].lower(), True
        safe = len(self._held) - self._doubtful()
        yield from self._told(self._held[:safe])
        self._held = self._held[safe:]

    def end(self) -> Iterator[tuple[str, bool]]:
        """Yield what was held back."""
        yield from self._told(self._held)
        self._held = ""

    def _next_tag(self) -> "re.Match[str] | None":
        if self._tag:
            return re.search(f"</{self._tag}>", self._held, re.IGNORECASE)
        line = 0 if self._at_line else self._held.find("\n")
        return _OPENED.search(self._held, line) if line >= 0 else None

    def _told(self, text: str) -> Iterator[tuple[str, bool]]:
        if text:
            _, newline, line = text.rpartition("\n")
            self._at_line = (self._at_line or bool(newline)) and not line.strip(" \t")
            yield text, bool(self._tag)

    def _doubtful(self) -> int:
        """Return how many of the last characters may be the beginning of a tag."""
        tags = [f"</{self._tag}>"] if self._tag else [f"<{name}>" for name in _TAGS.split("|")]
        tail = self._held[-_LONGEST:].lower()
        return next((size for size in range(len(tail), 0, -1) if any(tag.startswith(tail[-size:]) for tag in tags)), 0)


_LONGEST = len("</reasoning>")
