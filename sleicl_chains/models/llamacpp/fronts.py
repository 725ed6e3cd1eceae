"""Chat prompts that differ in their question alone: the template is asked once for all of them."""

import secrets
import threading
from collections.abc import Callable, Sequence
from typing import NamedTuple

Turn = dict[str, str]
"""`role` and `content`."""

_MOST = 64
"""Fronts that are remembered; few-shot examples chosen anew for each question would pile up."""
_BLANK = " \t\n\r"


class _Front(NamedTuple):
    """What stands before and after the question, and whether the template trims it."""

    before: str
    after: str
    trims: bool


class Fronts:
    """Writes chats down by a template that another process holds.

    From the second chat on that differs in its last user turn alone, the question is put between the texts that the
    template wrote around a made-up one. A question with a control character or `<` in it goes to the template itself:
    some templates look for marks such as `<tool_response>` in what a user says.

    Args:
        template: returns the text of a chat; it must depend on nothing else.
    """

    def __init__(self, template: Callable[[Sequence[Turn]], str]) -> None:
        self._template = template
        self._known: dict[tuple[str, ...], _Front | None] = {}
        self._lock = threading.Lock()

    def render(self, turns: Sequence[Turn]) -> str:
        """Return the text of a chat."""
        at = max((at for at, turn in enumerate(turns) if turn["role"] == "user"), default=-1)
        if at < 0 or not _is_plain(turns[at]["content"]):
            return self._template(turns)
        key = (str(at), *(turn["role"] + "\0" + turn["content"] for turn in [*turns[:at], *turns[at + 1 :]]))
        front = self._found(key, turns, at)
        if front is None:
            return self._template(turns)
        question = turns[at]["content"]
        return front.before + (question.strip(_BLANK) if front.trims else question) + front.after

    def _found(self, key: tuple[str, ...], turns: Sequence[Turn], at: int) -> _Front | None:
        """Return the front of a key that has come before; the template is asked without holding other threads up."""
        with self._lock:
            if key not in self._known:
                if len(self._known) >= _MOST:
                    self._known.pop(next(iter(self._known)))
                self._known[key] = None  # worth asking for when the same comes again
                return None
            front = self._known[key]
        if front is None:
            front = self._front(turns, at)
            with self._lock:
                if key in self._known:
                    self._known[key] = front
        return front

    def _front(self, turns: Sequence[Turn], at: int) -> _Front | None:
        """Return what stands around a question; None where the template does more than put it in."""
        mark = secrets.token_hex(8)
        text = self._template([*turns[:at], {**turns[at], "content": f" {mark} "}, *turns[at + 1 :]])
        if text.count(mark) != 1:
            return None
        before, _, after = text.partition(mark)
        trims = not (before.endswith(" ") and after.startswith(" "))
        return _Front(before, after, trims) if trims else _Front(before[:-1], after[1:], trims)


def _is_plain(question: str) -> bool:
    return (
        "<" not in question and bool(question.strip(_BLANK)) and all(c.isprintable() or c in _BLANK for c in question)
    )
