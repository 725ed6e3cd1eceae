"""Thinking that stands in a reply between tags, apart from the answer.

A tag in the middle of a line may be part of a text, so it counts only where a line begins; `labels.py`, which looks for
one word, is stricter.
"""

import re

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
