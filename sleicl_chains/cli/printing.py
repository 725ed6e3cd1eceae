"""What reaches a terminal is text: no row, reply, file name or server can move the cursor or hide what it says."""

import shlex
import sys
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TextIO

_UNSEEN = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Categories that a terminal may obey, or hide: controls (ESC and C1 among them), formats (those of direction among
them), halves of pairs, separators of lines and paragraphs."""
_HARMLESS = "\n\t\u200c\u200d"
"""The two joiners move nothing, and Persian, Hindi and many emoji are misspelt without them."""


def printable(text: str) -> str:
    r"""Return a text with what a terminal would obey written as `\u001b`; new lines and tabs stay."""
    if text.isprintable():
        return text
    text = text.replace("\r\n", "\n")
    return "".join(_escaped(one) if _is_obeyed(one) else one for one in text)


def _is_obeyed(one: str) -> bool:
    return one not in _HARMLESS and unicodedata.category(one) in _UNSEEN


def _escaped(one: str) -> str:
    """Return the escape that JSON and Python share; those beyond four digits are Python's alone."""
    return f"\\u{ord(one):04x}" if ord(one) < 0x10000 else f"\\U{ord(one):08x}"


def for_stream(text: str, stream: TextIO) -> str:
    """Return a text as it may be written there: printable on a terminal, as it is in a file or a pipe."""
    return printable(text) if stream.isatty() else text


class _Guarded:
    """A terminal's stream that takes printable text alone."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        self._stream.write(printable(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    @property
    def rich_proxied_file(self) -> TextIO:
        """Where rich writes, by the name under which it looks: its own colours and bars would be escaped here."""
        inner = self._stream
        while further := getattr(inner, "rich_proxied_file", None):  # rich wraps the stream itself while it draws a bar
            inner = further
        return inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def guard() -> None:
    """Let nothing but printable text through to a terminal, whoever prints: warnings, usage errors, tracebacks too.

    What rich prints goes past this; its texts are made by `console.cell`. So would a prompt of `input`.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not None and stream.isatty() and not isinstance(stream, _Guarded):
            setattr(sys, name, _Guarded(stream))


def say(lines: str | Iterable[str]) -> None:
    """Print a note, or several, on stderr."""
    for line in [lines] if isinstance(lines, str) else lines:
        print(line, file=sys.stderr, flush=True)


def quoted(place: str | Path) -> str:
    """Return a path as a shell takes it, also where it begins as an option does."""
    return shlex.quote(f"./{place}" if str(place).startswith("-") else str(place))
