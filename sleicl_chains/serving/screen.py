"""What a chat writes: answers on one stream, notes beside them on another, dim where a terminal can show that."""

import os
from collections.abc import Callable
from typing import TextIO

_DIM, _PLAIN = "\x1b[2m", "\x1b[0m"


class Screen:
    """Two streams, of which either may be a terminal, a file or a pipe.

    No text moves the cursor or colours anything: what reaches a terminal goes through `clean`, and the only escapes
    are those of this class.

    Args:
        out: of answers, and of what a command was asked to show.
        notes: of notes and complaints.
        clean: writes out what a terminal would obey.
    """

    def __init__(self, out: TextIO, notes: TextIO, clean: Callable[[str], str]) -> None:
        self.out = out
        self.notes = notes
        self.clean = clean
        self._within: TextIO | None = None
        """Where a line was begun and not ended."""
        self._begun = False
        """Whether the answer has said something."""

    def line(self, text: str) -> None:
        """Write what was asked for."""
        self._end()
        self._write(self.out, f"{text}\n")

    def note(self, text: str) -> None:
        """Write a dim line beside the answers."""
        self._end()
        self._dim(f"[{text}]")
        self._write(self.notes, "\n")

    def complain(self, text: str) -> None:
        """Write what went wrong, on one line."""
        self._end()
        self._write(self.notes, f"{' '.join(text.split())}\n")

    def piece(self, text: str, *, thinking: bool = False) -> None:
        """Write a part of an answer as it comes; thinking is dim, and only for a person who looks on."""
        stream = self.notes if thinking else self.out
        if thinking and not stream.isatty():
            return
        if self._within is not stream:
            self._end()
            self._begun = False
        if not self._begun:
            text = text.lstrip()
        if not text:
            return
        self._begun = True
        if thinking:
            self._dim(text)
        else:
            self._write(stream, text)
        self._within = None if text.endswith("\n") else stream

    def end(self, mark: str = "") -> None:
        """End an answer, with a mark behind it where it ended early."""
        if mark and self._within is not None and self._within.isatty() and self.notes.isatty():
            self.notes.write(" ")
            self._dim(f"[{mark}]")
        elif mark:
            self.note(mark)
        self._end()
        self._begun = False

    def _end(self) -> None:
        if self._within is not None:
            self._write(self._within, "\n")
        self._within = None

    def _dim(self, text: str) -> None:
        dim = _is_styled(self.notes)
        if dim:
            self.notes.write(_DIM)
        self._write(self.notes, text)
        if dim:
            self.notes.write(_PLAIN)
            self.notes.flush()

    def _write(self, stream: TextIO, text: str) -> None:
        if stream.isatty():
            text = self.clean(text.replace("\r", ""))
        stream.write(text)
        stream.flush()


def _is_styled(stream: TextIO) -> bool:
    """Say whether a stream shows styles and its user wants them (no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
